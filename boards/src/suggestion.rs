//! The nearest known name, for error messages.

use std::fmt;

/// The known name nearest to `name`, letter case aside; none if none is near.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let name = name.to_ascii_lowercase();
    let near = known.into_iter().map(|other| {
        let distance = strsim::osa_distance(&name, &other.to_ascii_lowercase());
        (distance, other)
    });
    let (distance, other) = near.min()?;
    (distance <= 1 + name.chars().count() / 4).then(|| other.to_owned())
}

/// `did you mean "x"?`, or the list of what there is.
pub(crate) struct Hint<'a>(pub(crate) &'a Option<String>, pub(crate) &'a str);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "did you mean {name:?}?"),
            None => write!(f, "known: {}", self.1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["GPIO17", "GPIO4", "raspberry-pi-4"];
        assert_eq!(nearest("gpio71", known).as_deref(), Some("GPIO17"));
        assert_eq!(
            nearest("raspberry-pi4", known).as_deref(),
            Some("raspberry-pi-4")
        );
        assert_eq!(nearest("siren", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
