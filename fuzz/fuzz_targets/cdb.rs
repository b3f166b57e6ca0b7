//! CDBs: any bytes decode to a command or to sense.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|cdb: &[u8]| {
    if let Err(sense) = scsi::command::Command::decode(cdb) {
        assert!(sense.key != 0, "a refusal without a reason");
    }
});
