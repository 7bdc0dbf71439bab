//! What holds a board back: heat, weak supply, limits of the firmware.

use serde::Serialize;

use crate::board::schema::Throttle;
use crate::tree::Tree;

/// Limits in force. False also where nothing says otherwise; see [`Throttling::is_known`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Throttling {
    /// The supply is, or within the last seconds was, too weak.
    pub under_voltage: bool,
    /// The clock is held below its limit.
    pub frequency_capped: bool,
    /// The firmware throttles because of heat.
    pub throttled: bool,
    /// The soft temperature limit is in force (Pi 3B+).
    pub soft_limit: bool,
    /// Events of under-voltage since the start, where the chip counts them.
    pub under_voltage_events: Option<u64>,
    /// Events of over-current since the start, where the chip counts them.
    pub over_current_events: Option<u64>,
    /// Names of what was read.
    pub sources: Vec<String>,
}

/// Bits of the flags of the Raspberry Pi firmware; 16 bits higher is the same since the kernel last
/// asked (its driver asks every two seconds and clears them).
/// Source: Raspberry Pi documentation, `vcgencmd get_throttled`.
mod bit {
    pub(super) const UNDER_VOLTAGE: u32 = 0;
    pub(super) const CAPPED: u32 = 1;
    pub(super) const THROTTLED: u32 = 2;
    pub(super) const SOFT_LIMIT: u32 = 3;
}

impl Throttling {
    /// Reads every source that is there.
    pub(crate) fn read(tree: &Tree, sources: &Throttle) -> Throttling {
        let mut seen = Throttling::default();
        seen.add_alarm(tree, sources);
        seen.add_firmware_flags(tree, sources);
        seen.add_event_counts(tree, sources);
        seen.add_cooling(tree, sources);
        seen
    }

    /// Whether anything could be read, so that `false` means "no".
    pub fn is_known(&self) -> bool {
        !self.sources.is_empty()
    }

    /// Whether the cores are slower than they could be.
    pub fn is_slowed(&self) -> bool {
        self.frequency_capped || self.throttled || self.soft_limit
    }

    fn add_alarm(&mut self, tree: &Tree, sources: &Throttle) {
        let device = sources
            .under_voltage_hwmon
            .as_deref()
            .and_then(|name| tree.hwmon(name));
        let Some(alarm) = device.and_then(|device| tree.number(device.join("in0_lcrit_alarm")))
        else {
            return;
        };
        self.under_voltage |= alarm != 0.0;
        self.sources.extend(sources.under_voltage_hwmon.clone());
    }

    fn add_firmware_flags(&mut self, tree: &Tree, sources: &Throttle) {
        let flags = sources.firmware_flags.iter().find_map(|path| {
            let text = tree.text(path)?;
            u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
        });
        let Some(flags) = flags else {
            return;
        };
        let is_set = |bit: u32| flags & (1 << bit | 1 << (bit + 16)) != 0;
        self.under_voltage |= is_set(bit::UNDER_VOLTAGE);
        self.frequency_capped |= is_set(bit::CAPPED);
        self.throttled |= is_set(bit::THROTTLED);
        self.soft_limit |= is_set(bit::SOFT_LIMIT);
        self.sources.push("firmware flags".to_owned());
    }

    fn add_event_counts(&mut self, tree: &Tree, sources: &Throttle) {
        let Some(name) = &sources.over_current_hwmon else {
            return;
        };
        let Some(device) = tree.hwmon(name) else {
            return;
        };
        let count = |n: u32| {
            tree.text(device.join(format!("oc{n}_event_cnt")))?
                .parse::<u64>()
                .ok()
        };
        self.under_voltage_events = count(1);
        self.over_current_events = match (count(2), count(3)) {
            (None, None) => None,
            (average, instant) => Some(average.unwrap_or(0).saturating_add(instant.unwrap_or(0))),
        };
        self.sources.push(name.clone());
    }

    fn add_cooling(&mut self, tree: &Tree, sources: &Throttle) {
        for device in tree.list("/sys/class/thermal") {
            let kind = tree.text(device.join("type")).unwrap_or_default();
            if !sources.cooling.contains(&kind) {
                continue;
            }
            if let Some(state) = tree.number(device.join("cur_state")) {
                self.throttled |= state > 0.0;
                self.sources.push(kind);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Throttling;
    use crate::board::Board;
    use crate::fixture::Fixture;

    fn read(board: &str, files: &[(&str, &str)]) -> Throttling {
        let board = Board::by_name(board).unwrap();
        Throttling::read(&Fixture::new(files).tree(), &board.throttle)
    }

    #[test]
    fn the_hwmon_alarm_means_a_weak_supply() {
        let files = [
            ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
            ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
        ];
        let seen = read("raspberry-pi-5", &files);
        assert!(seen.under_voltage && !seen.is_slowed());
        assert_eq!(seen.sources, ["rpi_volt"]);
    }

    #[test]
    fn firmware_flags_say_now_and_just_before() {
        let flags = |text: &str| {
            let path = "sys/devices/platform/soc/soc:firmware/get_throttled";
            let seen = read("raspberry-pi-4", &[(path, text)]);
            (
                seen.under_voltage,
                seen.frequency_capped,
                seen.throttled,
                seen.soft_limit,
            )
        };
        assert_eq!(flags("0\n"), (false, false, false, false));
        assert_eq!(flags("1\n"), (true, false, false, false));
        assert_eq!(flags("50000\n"), (true, false, true, false));
        assert_eq!(flags("0x80008\n"), (false, false, false, true));
        assert_eq!(flags("6\n"), (false, true, true, false));
    }

    #[test]
    fn a_jetson_counts_events_and_raises_alerts() {
        let seen = read(
            "jetson-orin-nano",
            &[
                ("sys/class/hwmon/hwmon3/name", "soctherm_oc\n"),
                ("sys/class/hwmon/hwmon3/oc1_event_cnt", "2\n"),
                ("sys/class/hwmon/hwmon3/oc2_event_cnt", "15\n"),
                ("sys/class/hwmon/hwmon3/oc3_event_cnt", "37\n"),
                ("sys/class/thermal/cooling_device0/type", "pwm-fan\n"),
                ("sys/class/thermal/cooling_device0/cur_state", "3\n"),
                (
                    "sys/class/thermal/cooling_device1/type",
                    "cpu-throttle-alert\n",
                ),
                ("sys/class/thermal/cooling_device1/cur_state", "1\n"),
            ],
        );
        assert!(seen.throttled && !seen.under_voltage);
        assert_eq!(
            (seen.under_voltage_events, seen.over_current_events),
            (Some(2), Some(52))
        );
    }

    #[test]
    fn nothing_readable_is_not_no() {
        let seen = read(
            "raspberry-pi-4",
            &[("sys/devices/platform/soc/soc:firmware/get_throttled", "zzz")],
        );
        assert!(!seen.is_known());
        assert_eq!(seen, Throttling::default());
    }
}
