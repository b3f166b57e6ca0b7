# SPDX-License-Identifier: Apache-2.0
# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_tcmu_runner_global_optspecs
    string join \n d/debug f/nofile= l/tcmu-log-dir= handler-path= h/help V/version
end

function __fish_tcmu_runner_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_tcmu_runner_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_tcmu_runner_using_subcommand
    set -l cmd (__fish_tcmu_runner_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -s f -l nofile -d 'How many files may be open (65536 to 1048576); default: as many as the hard limit allows' -r
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -s l -l tcmu-log-dir -d 'Directory of the log file, tcmu-runner.log; default: $TCMU_LOGDIR, or /var/log' -r -F
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -l handler-path -d 'Directory of plugins, handler_*.so; default: tcmu-runner in the directory of the system\'s libraries, /usr/lib/x86_64-linux-gnu on a PC' -r -F
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -s d -l debug -d 'Log everything, SCSI commands included (log level 5)'
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -s V -l version -d 'Print version'
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -f -a "check" -d 'Report what is missing on this host, and how to fix it; exit status 1 if anything is missing'
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -f -a "status" -d 'Show how the daemon that runs does: its devices, their I/O, what failed; exit status 1 if it cannot be asked'
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -f -a "plugin-process" -d 'Be the process of a plugin: the daemon starts it (plugin_isolation in tcmu.conf), and `check`'
complete -c tcmu-runner -n "__fish_tcmu_runner_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand check" -s h -l help -d 'Print help'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand status" -l json -d 'As JSON, for scripts'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand status" -s h -l help -d 'Print help'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand plugin-process" -s h -l help -d 'Print help'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand help; and not __fish_seen_subcommand_from check status plugin-process help" -f -a "check" -d 'Report what is missing on this host, and how to fix it; exit status 1 if anything is missing'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand help; and not __fish_seen_subcommand_from check status plugin-process help" -f -a "status" -d 'Show how the daemon that runs does: its devices, their I/O, what failed; exit status 1 if it cannot be asked'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand help; and not __fish_seen_subcommand_from check status plugin-process help" -f -a "plugin-process" -d 'Be the process of a plugin: the daemon starts it (plugin_isolation in tcmu.conf), and `check`'
complete -c tcmu-runner -n "__fish_tcmu_runner_using_subcommand help; and not __fish_seen_subcommand_from check status plugin-process help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
