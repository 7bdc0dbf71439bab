//! Controls of a camera by name.

use std::collections::BTreeMap;

use crate::view::Orientation;

/// Something a camera lets a caller set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The driver's number.
    pub id: u32,
    /// The driver's name in snake case, for example `exposure_time_absolute`.
    pub name: String,
    /// What kind of values it takes.
    pub kind: Kind,
    /// Least value.
    pub least: i64,
    /// Greatest value.
    pub most: i64,
    /// Distance between values, at least 1.
    pub step: u64,
}

/// What kind of values a control takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// On or off.
    Switch,
    /// One of a list.
    Menu(Vec<MenuEntry>),
    /// Any value: setting it does something.
    Button,
}

/// One choice of a menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MenuEntry {
    /// The value to set.
    pub index: u32,
    /// The driver's name of it.
    pub name: String,
}

/// A control that cannot be set as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The camera has no such control.
    #[error("the camera has no control {name:?}; it has: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// The value is not one of those the control takes.
    #[error("control {name}={value}: {range}")]
    Value {
        /// The control.
        name: String,
        /// The value asked for.
        value: String,
        /// What it takes.
        range: String,
    },
    /// The driver refused.
    #[error("control {name}={value}: the driver refused: {reason}; {range}")]
    Refused {
        /// The control.
        name: String,
        /// The value asked for.
        value: String,
        /// What the system reported.
        reason: String,
        /// What it takes.
        range: String,
    },
}

impl Control {
    /// The number to set for a value as written: a number, `true` or `false`, or a menu entry's name in any
    /// case, with spaces or in snake case.
    ///
    /// # Errors
    ///
    /// A value out of range, off the steps, or not in the menu.
    pub fn number(&self, value: &str) -> Result<i32, ControlError> {
        let written: Option<i64> = match value {
            "true" | "on" => Some(1),
            "false" | "off" => Some(0),
            _ => value.parse().ok(),
        };
        let number = match &self.kind {
            Kind::Menu(entries) => entry(entries, value),
            Kind::Button => Some(written.unwrap_or(1)),
            Kind::Number | Kind::Switch => written.filter(|number| self.takes(*number)),
        };
        let number = number.and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| ControlError::Value {
            name: self.name.clone(),
            value: value.to_owned(),
            range: self.range(),
        })
    }

    fn takes(&self, number: i64) -> bool {
        let in_range = number >= self.least && number <= self.most;
        in_range && number.abs_diff(self.least).is_multiple_of(self.step.max(1))
    }

    /// What the control takes, in words.
    pub fn range(&self) -> String {
        match &self.kind {
            Kind::Switch => "it is true or false".into(),
            Kind::Button => "it takes any value".into(),
            Kind::Menu(entries) => {
                let names = entries
                    .iter()
                    .map(|entry| format!("{} ({})", entry.index, entry.name));
                format!("it is one of {}", names.collect::<Vec<_>>().join(", "))
            }
            Kind::Number if self.step > 1 => {
                format!(
                    "it is a number from {} to {} in steps of {}",
                    self.least, self.most, self.step
                )
            }
            Kind::Number => format!("it is a number from {} to {}", self.least, self.most),
        }
    }
}

fn entry(entries: &[MenuEntry], value: &str) -> Option<i64> {
    let wanted = snake_case(value);
    let named = entries
        .iter()
        .find(|entry| snake_case(&entry.name) == wanted);
    let numbered = || {
        entries
            .iter()
            .find(|entry| entry.index.to_string() == value)
    };
    named.or_else(numbered).map(|entry| i64::from(entry.index))
}

/// A driver's name as `v4l2-ctl` writes it: lower case letters and digits, one underscore between words.
pub(super) fn snake_case(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("_").to_ascii_lowercase()
}

/// What is to be set on a camera, and what is left for the view.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    /// Controls and values in the order to set them.
    pub(super) set: Vec<(&'a Control, i32, &'a str)>,
    /// Turn and flips the camera cannot do itself.
    pub(super) rest: Orientation,
}

/// Matches wishes with the controls a camera has.
///
/// Automatic modes are set first, as cameras refuse manual values while they are on. `rotate`,
/// `horizontal_flip` and `vertical_flip` that the camera lacks become the view's business.
pub(super) fn plan<'a>(
    controls: &'a [Control],
    wishes: &'a BTreeMap<String, String>,
) -> Result<Plan<'a>, ControlError> {
    let mut plan = Plan {
        set: Vec::new(),
        rest: Orientation::default(),
    };
    for (name, value) in wishes {
        match controls.iter().find(|control| control.name == *name) {
            Some(control) => plan.set.push((control, control.number(value)?, value)),
            None => {
                turn(&mut plan.rest, name, value).unwrap_or_else(|| Err(unknown(controls, name)))?
            }
        }
    }
    plan.set
        .sort_by_key(|(control, ..)| !control.name.contains("auto"));
    Ok(plan)
}

/// Does in software what the control would do; none if it is no such control.
fn turn(rest: &mut Orientation, name: &str, value: &str) -> Option<Result<(), ControlError>> {
    let quarters = ["rotate"].contains(&name);
    let target = match name {
        "rotate" => None,
        "horizontal_flip" => Some(&mut rest.mirror),
        "vertical_flip" => Some(&mut rest.flip),
        _ => return None,
    };
    let stand_in = Control {
        id: 0,
        name: name.to_owned(),
        kind: if quarters { Kind::Number } else { Kind::Switch },
        least: 0,
        most: if quarters { 270 } else { 1 },
        step: if quarters { 90 } else { 1 },
    };
    Some(stand_in.number(value).map(|number| match target {
        Some(target) => *target = number != 0,
        None => rest.quarter_turns = (number / 90) as u8,
    }))
}

fn unknown(controls: &[Control], name: &str) -> ControlError {
    let known: Vec<&str> = controls
        .iter()
        .map(|control| control.name.as_str())
        .collect();
    ControlError::Unknown {
        name: name.to_owned(),
        known: known.join(" "),
    }
}

/// One orientation that does `first`, then `second`.
pub(super) fn then(first: Orientation, second: Orientation) -> Orientation {
    // A flip is a mirror and half a turn; a mirror reverses the turns that follow it.
    let turns = |given: Orientation| u32::from(given.quarter_turns) + 2 * u32::from(given.flip);
    let mirrored = |given: Orientation| given.mirror ^ given.flip;
    let second_turns = match mirrored(first) {
        true => 4 - turns(second) % 4,
        false => turns(second),
    };
    Orientation {
        quarter_turns: ((turns(first) + second_turns) % 4) as u8,
        mirror: mirrored(first) ^ mirrored(second),
        flip: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(name: &str, kind: Kind, least: i64, most: i64, step: u64) -> Control {
        Control {
            id: 1,
            name: name.into(),
            kind,
            least,
            most,
            step,
        }
    }

    fn exposure_menu() -> Control {
        let entry = |index, name: &str| MenuEntry {
            index,
            name: name.into(),
        };
        let entries = vec![entry(1, "Manual Mode"), entry(3, "Aperture Priority Mode")];
        control("auto_exposure", Kind::Menu(entries), 0, 3, 1)
    }

    #[test]
    fn names_are_the_drivers_in_snake_case() {
        let cases = [
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Brightness", "brightness"),
            ("S-Video 2 (x)", "s_video_2_x"),
            ("\u{fffd}", ""),
        ];
        for (name, expected) in cases {
            assert_eq!(snake_case(name), expected);
        }
    }

    #[test]
    fn values_are_checked_against_the_range() {
        let brightness = control("brightness", Kind::Number, -64, 64, 2);
        let hflip = control("horizontal_flip", Kind::Switch, 0, 1, 1);
        let push = control("focus_now", Kind::Button, 0, 0, 1);
        let menu = exposure_menu();
        let wide = control("wide", Kind::Number, i64::MIN, i64::MAX, 1);
        let cases = [
            (&brightness, "-64", Some(-64)),
            (&brightness, "0", Some(0)),
            (&brightness, "1", None),
            (&brightness, "65", None),
            (&brightness, "bright", None),
            (&hflip, "true", Some(1)),
            (&hflip, "0", Some(0)),
            (&hflip, "2", None),
            (&push, "", Some(1)),
            (&menu, "manual_mode", Some(1)),
            (&menu, "Aperture Priority Mode", Some(3)),
            (&menu, "3", Some(3)),
            (&menu, "2", None),
            (&wide, "9999999999", None),
            (&wide, "-5", Some(-5)),
        ];
        for (control, value, expected) in cases {
            assert_eq!(
                control.number(value).ok(),
                expected,
                "{}={value}",
                control.name
            );
        }
    }

    #[test]
    fn an_error_names_control_value_and_range() {
        let error = control("gain", Kind::Number, 0, 100, 5)
            .number("101")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "control gain=101: it is a number from 0 to 100 in steps of 5"
        );
        let error = exposure_menu().number("auto").unwrap_err().to_string();
        assert_eq!(
            error,
            "control auto_exposure=auto: it is one of 1 (Manual Mode), 3 (Aperture Priority Mode)"
        );
    }

    #[test]
    fn automatic_modes_are_set_before_values() {
        let controls = [control("a_gain", Kind::Number, 0, 9, 1), exposure_menu()];
        let wishes = [("a_gain", "3"), ("auto_exposure", "1")];
        let wishes = wishes
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let plan = plan(&controls, &wishes).unwrap();
        let order: Vec<&str> = plan
            .set
            .iter()
            .map(|(control, ..)| control.name.as_str())
            .collect();
        assert_eq!(order, ["auto_exposure", "a_gain"]);
    }

    #[test]
    fn turns_and_flips_the_camera_lacks_are_left_to_the_view() {
        let controls = [control("horizontal_flip", Kind::Switch, 0, 1, 1)];
        let wishes = [
            ("horizontal_flip", "1"),
            ("vertical_flip", "1"),
            ("rotate", "270"),
        ];
        let wishes = wishes
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let plan = plan(&controls, &wishes).unwrap();
        assert_eq!(plan.set.len(), 1);
        assert_eq!(
            plan.rest,
            Orientation {
                quarter_turns: 3,
                mirror: false,
                flip: true
            }
        );
        let wrong = [("rotate".to_owned(), "45".to_owned())].into();
        assert!(matches!(
            super::plan(&controls, &wrong),
            Err(ControlError::Value { .. })
        ));
    }

    #[test]
    fn an_unknown_control_lists_those_there_are() {
        let controls = ["gain", "focus"].map(|name| control(name, Kind::Number, 0, 100, 1));
        let wishes = [("gian".to_owned(), "1".to_owned())].into();
        let error = plan(&controls, &wishes).unwrap_err().to_string();
        let expected = "the camera has no control \"gian\"; it has: gain focus";
        assert_eq!(error, expected);
    }

    /// Where the pixel at the top left, and the one to its right, end up on a 2 × 3 grid of corners.
    fn corner(orientation: Orientation, (mut x, mut y): (i32, i32)) -> (i32, i32) {
        for _ in 0..orientation.quarter_turns {
            (x, y) = (-y, x);
        }
        let x = if orientation.mirror { -x } else { x };
        let y = if orientation.flip { -y } else { y };
        (x, y)
    }

    #[test]
    fn two_orientations_make_one() {
        let all = (0..16).map(|bits: u8| Orientation {
            quarter_turns: bits & 3,
            mirror: bits & 4 != 0,
            flip: bits & 8 != 0,
        });
        for first in all.clone() {
            for second in all.clone() {
                let both = then(first, second);
                for point in [(1, 2), (-3, 1)] {
                    let expected = corner(second, corner(first, point));
                    assert_eq!(corner(both, point), expected, "{first:?} {second:?}");
                }
            }
        }
    }
}
