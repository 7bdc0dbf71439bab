//! Figures as text for Prometheus.
//!
//! Source: Prometheus text exposition format 0.0.4.

use super::state::{Family, FamilyKind};
use std::fmt::Write;

/// Media type of [`text`].
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families as text.
pub(super) fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        let kind = match family.kind {
            FamilyKind::Counter => "counter",
            FamilyKind::Gauge => "gauge",
        };
        let help = family.help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a text cannot fail.
        let _ = writeln!(text, "# HELP {} {help}", family.name);
        let _ = writeln!(text, "# TYPE {} {kind}", family.name);
        for sample in &family.samples {
            text.push_str(family.name);
            for (n, (label, value)) in sample.labels.iter().enumerate() {
                let open = if n == 0 { '{' } else { ',' };
                let _ = write!(text, "{open}{label}=\"{}\"", escaped(value));
            }
            if !sample.labels.is_empty() {
                text.push('}');
            }
            let _ = writeln!(text, " {}", figure(sample.value));
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
}

fn figure(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::state::Sample;

    #[test]
    fn a_family_says_its_name_once_and_escapes_labels() {
        let sample = |labels, value| Sample { labels, value };
        let families = [
            Family {
                name: "ocelli_answers_total",
                help: "Answers",
                kind: FamilyKind::Counter,
                samples: vec![
                    sample(
                        vec![("rule", "a\"b\\c\nd".to_owned()), ("end", "x".to_owned())],
                        3.0,
                    ),
                    sample(vec![("rule", "e".to_owned())], 0.5),
                ],
            },
            Family {
                name: "ocelli_temperature_celsius",
                help: "Heat",
                kind: FamilyKind::Gauge,
                samples: vec![sample(vec![], f64::NAN), sample(vec![], f64::NEG_INFINITY)],
            },
        ];
        let want = concat!(
            "# HELP ocelli_answers_total Answers\n",
            "# TYPE ocelli_answers_total counter\n",
            "ocelli_answers_total{rule=\"a\\\"b\\\\c\\nd\",end=\"x\"} 3\n",
            "ocelli_answers_total{rule=\"e\"} 0.5\n",
            "# HELP ocelli_temperature_celsius Heat\n",
            "# TYPE ocelli_temperature_celsius gauge\n",
            "ocelli_temperature_celsius NaN\n",
            "ocelli_temperature_celsius -Inf\n",
        );
        assert_eq!(text(&families), want);
    }
}
