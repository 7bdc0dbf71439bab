//! What this machine says about itself.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::tree::Tree;

/// Groups that give access to what Ocelli uses.
const GROUPS: [&str; 4] = ["video", "gpio", "dialout", "i2c"];
/// Beginnings of the names of device nodes that Ocelli uses.
const NODES: [&str; 10] = [
    "video", "media", "gpiochip", "ttyAMA", "ttyS", "ttyTHS", "ttyUSB", "ttyACM", "i2c-",
    "watchdog",
];

/// The machine at one moment. Everything that cannot be read is empty or none.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Device tree `compatible` strings, the most exact first.
    pub compatible: Vec<String>,
    /// Name of the machine for people.
    pub model: Option<String>,
    /// Cores that are switched on.
    pub cores: u32,
    /// Instruction set features as `/proc/cpuinfo` names them (`asimddp`, `i8mm`).
    pub cpu_features: Vec<String>,
    /// Memory of the kernel, in bytes; less than the board has by what the firmware keeps.
    pub ram_bytes: Option<u64>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// 64 or 32: the kind of program `/bin/sh` is.
    pub userland_bits: Option<u32>,
    /// Whether this process is root.
    pub is_root: bool,
    /// Groups that exist, and whether this process is in them.
    pub groups: BTreeMap<String, bool>,
    /// Device nodes, for example `/dev/video0`.
    pub nodes: Vec<String>,
    /// Whether the time was set from the network; none if nobody says.
    pub clock_synchronized: Option<bool>,
    /// The time.
    pub now: SystemTime,
}

impl Facts {
    /// Reads the facts of `tree`; `now` is the time of the machine.
    pub fn read(tree: &Tree, now: SystemTime) -> Facts {
        let cpuinfo = tree.text("/proc/cpuinfo").unwrap_or_default();
        let status = tree.text("/proc/self/status").unwrap_or_default();
        let is_root = field(&status, "Uid").split_whitespace().nth(1) == Some("0");
        Facts {
            compatible: strings(tree.bytes("/proc/device-tree/compatible")),
            model: strings(tree.bytes("/proc/device-tree/model"))
                .into_iter()
                .next(),
            cores: cpuinfo
                .lines()
                .filter(|line| key(line) == "processor")
                .count() as u32,
            cpu_features: field(&cpuinfo, "Features")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            ram_bytes: ram_bytes(tree),
            kernel: tree.text("/proc/sys/kernel/osrelease"),
            userland_bits: userland_bits(tree),
            is_root,
            groups: groups(tree, &status),
            nodes: nodes(tree),
            clock_synchronized: (tree.has("/run/systemd/timesync"))
                .then(|| tree.has("/run/systemd/timesync/synchronized")),
            now,
        }
    }

    /// Whether there is a device node at `path`.
    pub fn has_node(&self, path: &str) -> bool {
        self.nodes.iter().any(|node| node == path)
    }

    /// Whether there is a device node that begins with `prefix`.
    pub fn has_node_like(&self, prefix: &str) -> bool {
        self.nodes.iter().any(|node| node.starts_with(prefix))
    }
}

/// The strings of a device tree property.
fn strings(bytes: Option<Vec<u8>>) -> Vec<String> {
    let bytes = bytes.unwrap_or_default();
    let parts = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

fn key(line: &str) -> &str {
    line.split(':').next().unwrap_or_default().trim()
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| key(line) == name);
    line.and_then(|line| line.split_once(':'))
        .map_or("", |(_, value)| value.trim())
}

fn ram_bytes(tree: &Tree) -> Option<u64> {
    let meminfo = tree.text("/proc/meminfo")?;
    let kilobytes: u64 = field(&meminfo, "MemTotal")
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    kilobytes.checked_mul(1024)
}

/// The class byte of the ELF header of the shell.
fn userland_bits(tree: &Tree) -> Option<u32> {
    let shell = tree.bytes("/bin/sh")?;
    match shell.get(..5)? {
        [0x7f, b'E', b'L', b'F', 1] => Some(32),
        [0x7f, b'E', b'L', b'F', 2] => Some(64),
        _ => None,
    }
}

fn groups(tree: &Tree, status: &str) -> BTreeMap<String, bool> {
    let ours: Vec<&str> = field(status, "Groups").split_whitespace().collect();
    let own = field(status, "Gid").split_whitespace().nth(1);
    let file = tree.text("/etc/group").unwrap_or_default();
    let lines = file.lines().filter_map(|line| {
        let mut parts = line.split(':');
        Some((parts.next()?, parts.nth(1)?))
    });
    let known = lines.filter(|(name, _)| GROUPS.contains(name));
    known
        .map(|(name, id)| (name.to_owned(), ours.contains(&id) || own == Some(id)))
        .collect()
}

fn nodes(tree: &Tree) -> Vec<String> {
    let paths = tree
        .list("/dev")
        .into_iter()
        .map(|path| path.display().to_string());
    paths
        .filter(|path| {
            let name = path.trim_start_matches("/dev/");
            NODES.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::Facts;
    use crate::fixture::Fixture;

    #[test]
    fn a_raspberry_pi_is_read() {
        let fixture = Fixture::new(&[
            (
                "proc/device-tree/compatible",
                "raspberrypi,5-model-b\0brcm,bcm2712\0",
            ),
            ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
            (
                "proc/cpuinfo",
                "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nprocessor\t: 1\n",
            ),
            (
                "proc/meminfo",
                "MemTotal:        8245240 kB\nMemFree: 1 kB\n",
            ),
            ("proc/sys/kernel/osrelease", "6.12.25+rpt-rpi-2712\n"),
            (
                "proc/self/status",
                "Name:\tocelli\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\nGroups:\t20 44 1000\n",
            ),
            (
                "etc/group",
                "root:x:0:\ndialout:x:20:pi\nvideo:x:44:pi\ngpio:x:986:\n",
            ),
            ("bin/sh", "\u{7f}ELF\u{2}rest"),
            ("dev/gpiochip0", ""),
            ("dev/null", ""),
            ("dev/video0", ""),
            ("run/systemd/timesync/x", ""),
        ]);
        let facts = Facts::read(&fixture.tree(), SystemTime::UNIX_EPOCH);
        assert_eq!(facts.compatible, ["raspberrypi,5-model-b", "brcm,bcm2712"]);
        assert_eq!(
            facts.model.as_deref(),
            Some("Raspberry Pi 5 Model B Rev 1.0")
        );
        assert_eq!((facts.cores, facts.cpu_features.len()), (2, 3));
        assert_eq!(facts.ram_bytes, Some(8_245_240 * 1024));
        assert_eq!(facts.userland_bits, Some(64));
        assert!(!facts.is_root);
        let groups: Vec<(&str, bool)> =
            facts.groups.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(
            groups,
            [("dialout", true), ("gpio", false), ("video", true)]
        );
        assert_eq!(facts.nodes, ["/dev/gpiochip0", "/dev/video0"]);
        assert!(facts.has_node("/dev/video0") && !facts.has_node("/dev/video"));
        assert!(facts.has_node_like("/dev/gpiochip"));
        assert_eq!(facts.clock_synchronized, Some(false));
    }

    #[test]
    fn an_empty_tree_gives_no_facts() {
        let facts = Facts::read(&Fixture::new(&[]).tree(), SystemTime::UNIX_EPOCH);
        assert!(facts.compatible.is_empty() && facts.nodes.is_empty() && facts.groups.is_empty());
        assert_eq!(
            (
                facts.ram_bytes,
                facts.userland_bits,
                facts.clock_synchronized
            ),
            (None, None, None)
        );
    }
}
