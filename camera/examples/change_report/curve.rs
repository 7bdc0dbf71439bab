//! The curve as a picture: false triggers against missed entries.

use std::fmt::Write;

use super::{SENSITIVITIES, Scores, THRESHOLDS, WAYS};

const WIDTH: f32 = 640.0;
const HEIGHT: f32 = 400.0;
const LEFT: f32 = 60.0;
const BOTTOM: f32 = 350.0;
const COLORS: [&str; 3] = ["#0a6", "#c60", "#36c"];
/// Ends of the axes: false triggers an hour (a logarithmic axis), and missed entries in percent.
const FALSE: [f32; 2] = [1.0, 300.0];
const MISSED: f32 = 80.0;

/// An SVG picture with a line for each way.
pub(crate) fn svg(scores: &Scores) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    axes(&mut svg);
    for (way, settings) in scores.iter().enumerate() {
        let color = COLORS[way];
        let places: Vec<(f32, f32)> = settings
            .iter()
            .map(|score| place(score.false_an_hour(), score.missed_percent()))
            .collect();
        let points: Vec<String> = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        line(
            &mut svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\"/>",
                points.join(" ")
            ),
        );
        for (setting, (x, y)) in places.iter().enumerate() {
            let value = if way == 0 {
                SENSITIVITIES[setting] as f32
            } else {
                THRESHOLDS[setting]
            };
            line(
                &mut svg,
                format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>"),
            );
            line(
                &mut svg,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{value}</text>",
                    x + 5.0,
                    y - 4.0
                ),
            );
        }
        let y = 20.0 + 16.0 * way as f32;
        line(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{y}\" fill=\"{color}\">{}</text>",
                LEFT + 10.0,
                WAYS[way]
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn axes(svg: &mut String) {
    for value in [1.0, 3.0, 10.0, 30.0, 100.0, 300.0] {
        let (x, _) = place(value, 0.0);
        line(
            svg,
            format_args!("<path d=\"M{x:.1} 10V{BOTTOM}\" stroke=\"#ddd\"/>"),
        );
        line(
            svg,
            format_args!(
                "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>",
                BOTTOM + 16.0
            ),
        );
    }
    for value in [0.0, 20.0, 40.0, 60.0, 80.0] {
        let (_, y) = place(1.0, value);
        line(
            svg,
            format_args!(
                "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#ddd\"/>",
                WIDTH - 20.0
            ),
        );
        line(
            svg,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value} %</text>",
                LEFT - 6.0,
                y + 4.0
            ),
        );
    }
    let title = "false triggers an hour (across) and missed entries (up); fewer of both is better";
    line(
        svg,
        format_args!("<text x=\"{LEFT}\" y=\"{}\">{title}</text>", HEIGHT - 12.0),
    );
}

fn place(false_an_hour: f32, missed: f32) -> (f32, f32) {
    let along =
        (false_an_hour.clamp(FALSE[0], FALSE[1]) / FALSE[0]).ln() / (FALSE[1] / FALSE[0]).ln();
    (
        LEFT + along * (WIDTH - 20.0 - LEFT),
        BOTTOM - missed.min(MISSED) / MISSED * (BOTTOM - 10.0),
    )
}

fn line(svg: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(svg, "{text}").expect("a string takes everything");
}
