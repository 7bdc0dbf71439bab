//! Wall clock readings as text: `2026-11-22 23:10:00`.

use ocelli_reflex::LocalTime;
use std::time::{Duration, UNIX_EPOCH};

const S_PER_DAY: u64 = 86_400;
/// Days from 1970 to the end of the year 9999.
const MAX_DAY: i32 = 2_932_896;

/// Reads `2026-11-22`, `2026-11-22 23:10` or `2026-11-22 23:10:05`; `T` may stand for the blank.
pub fn parse(text: &str) -> Option<LocalTime> {
    let text = text.trim();
    let rest = match text.len() {
        10 => " 00:00:00",
        16 => ":00",
        19 => "",
        _ => return None,
    };
    let time = humantime::parse_rfc3339_weak(&format!("{text}{rest}")).ok()?;
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    of_seconds(seconds)
}

/// The reading so many seconds after 1970-01-01 00:00; `None` beyond the year 9999.
pub fn of_seconds(seconds: u64) -> Option<LocalTime> {
    let day = i32::try_from(seconds / S_PER_DAY).ok()?;
    (day <= MAX_DAY).then_some(LocalTime {
        day,
        // Less than a day.
        second: (seconds % S_PER_DAY) as u32,
    })
}

/// Seconds since 1970-01-01 00:00; negative before.
pub fn seconds(local: LocalTime) -> i64 {
    i64::from(local.day) * 86_400 + i64::from(local.second_of_day())
}

/// The reading as text; days beyond the years 1970 to 9999 as a number.
pub fn text(local: LocalTime) -> String {
    let second = local.second_of_day();
    let known = u64::try_from(seconds(local)).ok();
    match known.filter(|_| local.day <= MAX_DAY) {
        Some(seconds) => {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            humantime::format_rfc3339_seconds(time)
                .to_string()
                .replace('T', " ")
                .replace('Z', "")
        }
        None => format!(
            "day {} {:02}:{:02}:{:02}",
            local.day,
            second / 3600,
            second / 60 % 60,
            second % 60
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_read_back_as_it_was_written() {
        for text in [
            "1970-01-01 00:00:00",
            "2026-11-22 23:10:05",
            "9999-12-31 23:59:59",
        ] {
            assert_eq!(parse(text).map(super::text).as_deref(), Some(text));
        }
        assert_eq!(parse("2026-11-22 23:10"), parse("2026-11-22T23:10:00"));
        assert_eq!(parse("2026-11-22").map(LocalTime::weekday), Some(6));
    }

    #[test]
    fn what_is_no_reading_is_none_and_what_has_no_date_is_a_number() {
        for text in [
            "",
            "23:10",
            "2026-13-01",
            "2026-11-22 25:00",
            "1969-12-31 00:00",
            "2026-11-22x23:10",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        for day in [i32::MIN, -1, i32::MAX] {
            let local = LocalTime {
                day,
                second: u32::MAX,
            };
            assert_eq!(super::text(local), format!("day {day} 23:59:59"));
        }
    }
}
