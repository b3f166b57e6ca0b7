// SPDX-License-Identifier: Apache-2.0
use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Tree(tempfile::tempdir().unwrap());
        fs::create_dir_all(tree.0.path().join("core/user_2/disk")).unwrap();
        tree
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    fn device(&self) -> Device {
        Configfs::new(self.0.path()).device(2, "disk").unwrap()
    }
}

#[test]
fn a_device_without_any_file_has_no_attributes_and_no_error() {
    let device = Tree::new().device();
    assert_eq!(device.dev_size().unwrap(), None);
    assert_eq!(device.dev_config().unwrap(), None);
    assert_eq!(device.cmd_time_out().unwrap(), None);
    assert_eq!(device.emulate_write_cache().unwrap(), None);
    assert_eq!(device.nl_reply_supported().unwrap(), None);
    assert_eq!(device.enabled().unwrap(), None);
    assert_eq!(device.info().unwrap(), None);
    assert_eq!(device.unit_serial().unwrap(), None);
    assert_eq!(device.alua_groups().unwrap(), []);
    assert_eq!(device.ports().unwrap(), []);
    assert!(!device.can_reset_ring());
    assert!(!device.enable_tmr_notification().unwrap());
    assert!(matches!(device.block(), Err(Error::Missing(path)) if path.ends_with("block_dev")));
}

#[test]
fn attributes_are_read_as_what_they_are() {
    let tree = Tree::new();
    for (file, content) in [
        ("attrib/dev_size", "1099511627776\n"),
        ("attrib/dev_config", "file//a b\n"),
        ("attrib/emulate_write_cache", "1\n"),
        ("attrib/nl_reply_supported", "-1\n"),
        ("attrib/hw_block_size", "512\n"),
        ("enable", "1\n"),
        ("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: aa-bb\n"),
    ] {
        tree.put(&format!("core/user_2/disk/{file}"), content);
    }
    let device = tree.device();
    assert_eq!(device.dev_size().unwrap(), Some(1 << 40));
    assert_eq!(device.dev_config().unwrap().unwrap(), "file//a b");
    assert_eq!(device.emulate_write_cache().unwrap(), Some(true));
    assert_eq!(device.nl_reply_supported().unwrap(), Some(-1));
    assert_eq!(device.hw_block_size().unwrap(), Some(512));
    assert_eq!(device.enabled().unwrap(), Some(true));
    assert_eq!(device.unit_serial().unwrap().unwrap(), "aa-bb");
    tree.put("core/user_2/disk/wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: \n");
    assert_eq!(device.unit_serial().unwrap(), None);
}

#[test]
fn nonsense_in_a_number_names_the_file_and_what_it_says() {
    let tree = Tree::new();
    tree.put("core/user_2/disk/attrib/dev_size", "lots\n");
    let error = tree.device().dev_size().unwrap_err().to_string();
    assert!(error.contains("attrib/dev_size") && error.contains("'lots'"), "{error}");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let configfs = Configfs::default();
    for name in ["", ".", "..", "a/b", "a\0b"] {
        assert!(matches!(configfs.device(0, name), Err(Error::Name(_))), "{name:?}");
    }
}

#[test]
fn the_actions_write_what_the_kernel_expects() {
    let tree = Tree::new();
    for action in ["block_dev", "reset_ring", "free_kept_buf"] {
        tree.put(&format!("core/user_2/disk/action/{action}"), "");
    }
    let device = tree.device();
    assert!(device.can_reset_ring());
    device.block().unwrap();
    assert_eq!(tree.get("core/user_2/disk/action/block_dev"), "1");
    device.reset_ring(ResetRing::Fail).unwrap();
    assert_eq!(tree.get("core/user_2/disk/action/reset_ring"), "2");
    device.free_kept_buf(300).unwrap();
    assert_eq!(tree.get("core/user_2/disk/action/free_kept_buf"), "300");
}

#[test]
fn a_file_without_end_is_read_in_part() {
    let endless = read_small(Path::new("/dev/zero")).unwrap().unwrap();
    assert_eq!(endless.len(), 64 << 10);
}

#[test]
fn an_alua_group_is_read_with_its_states_and_members() {
    let tree = Tree::new();
    for (file, content) in [
        ("tg_pt_gp_id", "16\n"),
        ("alua_access_state", "1\n"),
        ("alua_access_status", "Altered by Implicit ALUA\n"),
        ("alua_access_type", "Implicit and Explicit\n"),
        ("alua_support_active_optimized", "1\n"),
        ("alua_support_standby", "1\n"),
        ("alua_support_offline", "0\n"),
        ("preferred", "1\n"),
        ("nonop_delay_msecs", "100\n"),
        (
            "members",
            "iSCSI/iqn.2003-01.org:x/tpgt_1/lun_0\n\0loopback/naa.5/tpgt_2/lun_31\n\0junk\n\0",
        ),
    ] {
        tree.put(&format!("core/user_2/disk/alua/ours/{file}"), content);
    }
    tree.put("core/user_2/disk/alua/default_tg_pt_gp/alua_access_state", "what\n");
    let device = tree.device();
    let groups = device.alua_groups().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0].access_state, None, "nonsense");
    let ours = &groups[1];
    assert_eq!((&*ours.name, ours.id, ours.access_state), ("ours", Some(16), Some(1)));
    assert_eq!((ours.access_status, ours.implicit, ours.explicit), (Some(2), true, true));
    assert_eq!((ours.supported, ours.preferred), (Some(0x05), true));
    assert_eq!((ours.nonop_delay_msecs, ours.trans_delay_msecs), (Some(100), None));
    assert_eq!(ours.members.len(), 2);
    assert_eq!((&*ours.members[0].fabric, &*ours.members[1].fabric), ("iscsi", "loopback"));
    assert_eq!((ours.members[1].tpgt, ours.members[1].lun), (2, 31));
    ours.set_access_state(0).unwrap();
    assert_eq!(tree.get("core/user_2/disk/alua/ours/alua_access_state").trim(), "0");
}

#[test]
fn a_device_is_found_behind_the_ports_that_link_to_it() {
    let tree = Tree::new();
    fs::create_dir_all(tree.0.path().join("core/user_2/another")).unwrap();
    let link = |lun: &str, device: &str| {
        tree.put(&format!("{lun}/alua_tg_pt_gp"), "TG Port Alias: ours\nTG Port Group ID: 16\n");
        let to = tree.0.path().join("core/user_2").join(device);
        std::os::unix::fs::symlink(to, tree.0.path().join(lun).join("link")).unwrap();
    };
    link("loopback/naa.5/tpgt_1/lun/lun_0", "disk");
    link("loopback/naa.5/tpgt_1/lun/lun_1", "another");
    link("iscsi/iqn.x/tpgt_3/lun/lun_7", "disk");
    tree.put("iscsi/iqn.x/tpgt_3/enable", "0\n");
    tree.put("iscsi/iqn.x/tpgt_3/rtpi", "5\n");
    tree.put("iscsi/discovery_auth/userid", "\n");
    let ports = tree.device().ports().unwrap();
    assert_eq!(ports.len(), 2);
    assert_eq!(PortName::parse("iscsi/iqn.x/tpgt_3/lun_7").unwrap(), ports[0].name);
    assert_eq!((ports[0].enabled, ports[0].relative_id), (Some(false), Some(5)));
    assert_eq!(ports[1].name.fabric, "loopback");
    assert_eq!((ports[1].enabled, ports[1].relative_id), (None, None));
    assert_eq!(ports[1].alua_group.as_deref(), Some("ours"));
}
