//! `ocelli service`: prints a systemd unit for the agent.
//!
//! Source: `systemd.service(5)`, `systemd.exec(5)`, `systemd.resource-control(5)`.

use crate::cli::ServiceArgs;
use crate::fault::Fault;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// First version that knows `Type=notify-reload`.
const NOTIFY_RELOAD: u32 = 253;

/// Groups whose members may use devices.
const GROUPS: [(&str, &str); 4] = [
    ("gpio", "pins"),
    ("video", "cameras"),
    ("dialout", "serial lines"),
    ("i2c", "sensors"),
];

/// The parts of the unit that are the same everywhere.
const HARDENING: &str = include_str!("service/hardening.conf");

/// What the unit depends on.
struct Place<'a> {
    binary: &'a Path,
    config: &'a Path,
    user: Option<&'a str>,
    /// Text of `/etc/group`.
    groups: &'a str,
    /// Version of systemd; `None` if it is not known.
    systemd: Option<u32>,
}

/// Prints the unit.
///
/// # Errors
///
/// A path or user that cannot stand in a unit, an output that cannot be written.
pub fn run(args: &ServiceArgs) -> Result<(), Fault> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|source| Fault::File {
            path: path.to_owned(),
            source,
        })
    };
    let binary = match &args.binary {
        Some(binary) => absolute(binary)?,
        None => std::env::current_exe()?,
    };
    let text = unit(&Place {
        binary: &binary,
        config: &absolute(&args.config)?,
        user: args.user.as_deref(),
        groups: &std::fs::read_to_string("/etc/group").unwrap_or_default(),
        systemd: systemd_version(),
    })?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn systemd_version() -> Option<u32> {
    let output = Command::new("systemctl")
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    version(&String::from_utf8_lossy(&output.stdout))
}

/// The number in `systemd 252 (252.38-1)`.
fn version(text: &str) -> Option<u32> {
    let number = text.strip_prefix("systemd ")?;
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    number[..digits].parse().ok()
}

fn unit(place: &Place<'_>) -> Result<String, Fault> {
    let start = format!(
        "{} run --config {}",
        word(place.binary)?,
        word(place.config)?
    );
    let mut unit = format!(
        "# Put this into /etc/systemd/system/ocelli.service, then:\n\
         #   systemctl daemon-reload && systemctl enable --now ocelli\n\
         [Unit]\n\
         Description=Ocelli, eyes and reflexes of this board\n\
         After=network.target time-sync.target\n\
         # 60 starts in an hour are no accident: it stays stopped, pins safe, until\n\
         # `systemctl reset-failed ocelli`.\n\
         StartLimitIntervalSec=1h\n\
         StartLimitBurst=60\n\
         \n\
         [Service]\n\
         ExecStart={start}\n\
         # However it ended, every output pin is made safe.\n\
         ExecStopPost={start} --make-safe\n"
    );
    unit.push_str(reload(place.systemd));
    unit.push_str(
        "NotifyAccess=main\n\
         # Fed by the progress of the loop, never by a timer.\n\
         WatchdogSec=30\n\
         TimeoutStartSec=3min\n\
         TimeoutStopSec=20\n\
         Restart=always\n\
         RestartSec=5\n\
         OOMScoreAdjust=-500\n\
         LimitCORE=0\n\
         \n",
    );
    unit.push_str(&identity(place)?);
    unit.push('\n');
    unit.push_str(HARDENING);
    unit.push_str("\n[Install]\nWantedBy=multi-user.target\n");
    Ok(unit)
}

fn reload(systemd: Option<u32>) -> &'static str {
    if systemd.is_some_and(|version| version >= NOTIFY_RELOAD) {
        "Type=notify-reload\nReloadSignal=SIGHUP\n"
    } else {
        "# From systemd 253 on Type=notify-reload also waits until a reload is done.\n\
         Type=notify\nExecReload=kill -HUP $MAINPID\n"
    }
}

fn identity(place: &Place<'_>) -> Result<String, Fault> {
    let mut text = match place.user {
        Some(user) => format!("User={}\n", user_name(user)?),
        None => "DynamicUser=yes\n".to_owned(),
    };
    text.push_str("StateDirectory=ocelli\nStateDirectoryMode=0700\n");
    for (group, what) in GROUPS {
        let there = place
            .groups
            .lines()
            .any(|line| line.split(':').next() == Some(group));
        // Writing to a text cannot fail.
        let _ = if there {
            writeln!(text, "SupplementaryGroups={group}")
        } else {
            writeln!(
                text,
                "# No group {group} on this machine: {what} may need another one or a udev rule."
            )
        };
    }
    Ok(text)
}

fn user_name(user: &str) -> Result<&str, Fault> {
    let begin = user.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if begin && user.len() <= 31 && user.bytes().all(sound) {
        return Ok(user);
    }
    Err(Fault::Argument(format!(
        "--user {user:?} is no user name: it may have at most 31 small letters, digits, `-` and `_`, a letter first"
    )))
}

/// A path as one word of a command line of systemd, which gives `%`, `$`, `;`, quotes and
/// backslashes a meaning of their own.
fn word(path: &Path) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@:,~= ".contains(c);
    match path.to_str().filter(|text| text.chars().all(plain)) {
        Some(text) if text.contains(' ') => Ok(format!("\"{text}\"")),
        Some(text) => Ok(text.to_owned()),
        None => Err(Fault::Argument(format!(
            "{} has a sign that means something else to systemd; move it to a path of letters, digits, spaces and /._+-@:,~=",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(groups: &'a str, systemd: Option<u32>, user: Option<&'a str>) -> Place<'a> {
        Place {
            binary: Path::new("/usr/local/bin/ocelli"),
            config: Path::new("/etc/ocelli/my door.toml"),
            user,
            groups,
            systemd,
        }
    }

    #[test]
    fn the_unit_starts_the_agent_and_makes_pins_safe_after_it() {
        let text = unit(&place("", None, None)).unwrap();
        let start = "/usr/local/bin/ocelli run --config \"/etc/ocelli/my door.toml\"";
        assert!(text.contains(&format!("\nExecStart={start}\n")), "{text}");
        assert!(text.contains(&format!("\nExecStopPost={start} --make-safe\n")));
        assert!(text.contains("\nDynamicUser=yes\n"));
        assert!(text.contains("\nWantedBy=multi-user.target\n"));
    }

    #[test]
    fn only_groups_that_exist_are_named() {
        let groups = "root:x:0:\nvideo:x:44:pi\ngpiod:x:99:\n";
        let text = unit(&place(groups, None, Some("ocelli"))).unwrap();
        assert!(text.contains("\nUser=ocelli\n") && !text.contains("DynamicUser"));
        assert!(text.contains("\nSupplementaryGroups=video\n"), "{text}");
        for absent in ["gpio", "dialout", "i2c"] {
            assert!(!text.contains(&format!("\nSupplementaryGroups={absent}\n")));
            assert!(text.contains(&format!("\n# No group {absent} ")), "{text}");
        }
    }

    #[test]
    fn the_kind_of_service_is_one_that_systemd_knows() {
        for (systemd, kind) in [
            (None, "Type=notify"),
            (Some(252), "Type=notify"),
            (Some(253), "Type=notify-reload"),
        ] {
            let text = unit(&place("", systemd, None)).unwrap();
            let lines: Vec<_> = text.lines().filter(|l| l.starts_with("Type=")).collect();
            assert_eq!(lines, [kind], "{systemd:?}");
        }
        assert_eq!(version("systemd 252 (252.38-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(version("systemd 257~rc1"), Some(257));
        assert_eq!(version("busybox"), None);
    }

    #[test]
    fn what_systemd_would_read_otherwise_is_refused() {
        for path in ["/a/$HOME", "/a/%h", "/a;b", "/a\"b", "/a\\b", "/a\nb", "/ä"] {
            assert!(word(Path::new(path)).is_err(), "{path:?}");
        }
        for user in ["", "Root", "a b", "-a", "a\nUser=root", "%n"] {
            assert!(unit(&place("", None, Some(user))).is_err(), "{user:?}");
        }
    }
}
