//! How well the embedded model answers closed questions about pictures with known answers, and how
//! well its probabilities are to be believed, under several ways of judging.
//!
//! `cargo run --release --workspace --example closed_questions -- SET`, where SET was made by
//! `python evaluate.py make SET` in `tools/train`. Questions of pictures with an even number choose
//! the temperature, those of the others are counted.

use ocelli_agent::mind::{Judgement, judgement, spelling};
use ocelli_agent::model;
use ocelli_runtime::image::Rgb8;
use ocelli_runtime::{LoadOptions, PictureRequest, Precision, Session, Vlm};
use std::error::Error;
use std::path::Path;

/// One question: the scores of its answers by each way, and the right one.
struct Asked {
    even: bool,
    right: usize,
    /// As given, ended by the stop token; by all spellings; those on the blank picture.
    scores: [Vec<f64>; 3],
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let set = std::env::args()
        .nth(1)
        .ok_or("usage: closed_questions SET")?;
    let set = Path::new(&set);
    let options = LoadOptions {
        threads: std::thread::available_parallelism()?.get(),
        precision: Precision::Int8,
        ..LoadOptions::default()
    };
    let source = model::resolve(model::DEFAULT)?;
    let vlm = Vlm::load(&source, &options, &mut |_, _| {})?;
    let items = std::fs::read_to_string(set.join("items.jsonl"))?;
    let (mut yes_no, mut counts) = (Vec::new(), Vec::new());
    let (mut session, mut blank) = (vlm.session()?, vlm.session()?);
    see(&mut blank, &judgement::blank_picture()?)?;
    let mut shown = String::new();
    for line in items.lines() {
        let item: serde_json::Value = serde_json::from_str(line)?;
        let text = |key: &str| item[key].as_str().unwrap_or_default().trim().to_owned();
        let (kind, image, question) = (text("kind"), text("image"), text("question"));
        if kind != "yes_no" && kind != "count" {
            continue;
        }
        let answer = text("answer").trim_end_matches('.').to_lowercase();
        if image != shown {
            see(&mut session, &Rgb8::open(&set.join(&image))?)?;
            shown.clone_from(&image);
        }
        let answers: Vec<Vec<String>> = match kind.as_str() {
            "yes_no" => ["yes", "no"].map(spelling::of_text).to_vec(),
            _ => (0..=20).map(spelling::of_number).collect(),
        };
        let spelt = |spellings: &Vec<String>| spellings.iter().any(|s| s.to_lowercase() == answer);
        let right = answers
            .iter()
            .position(spelt)
            .ok_or("an answer that is none")?;
        let even = image
            .trim_end_matches(".png")
            .parse::<u32>()?
            .is_multiple_of(2);
        let scores = [
            plain(&mut session, &question, &answers)?,
            weighed(&mut session, &question, &answers)?,
            weighed(&mut blank, &question, &answers)?,
        ];
        let asked = Asked {
            even,
            right,
            scores,
        };
        match kind.as_str() {
            "yes_no" => yes_no.push(asked),
            _ => counts.push(asked),
        }
    }
    table("yes or no", &yes_no);
    table("counts, 0 to 20", &counts);
    Ok(())
}

fn see(session: &mut Session, image: &Rgb8) -> Outcome<()> {
    let request = PictureRequest {
        system: None,
        image,
        max_tiles: None,
    };
    session.see(&request, &mut |_| {})?;
    Ok(())
}

fn plain(session: &mut Session, question: &str, answers: &[Vec<String>]) -> Outcome<Vec<f64>> {
    let choices: Vec<String> = answers
        .iter()
        .map(|spellings| spellings[0].clone())
        .collect();
    session.question(question, 16, &mut |_| {})?;
    let scores = session.score(&choices)?;
    Ok(scores.iter().map(|score| score.log_probability).collect())
}

fn weighed(session: &mut Session, question: &str, answers: &[Vec<String>]) -> Outcome<Vec<f64>> {
    session.question(question, 16, &mut |_| {})?;
    Ok(session.weigh(answers)?)
}

fn table(name: &str, asked: &[Asked]) {
    let (even, odd): (Vec<&Asked>, Vec<&Asked>) = asked.iter().partition(|asked| asked.even);
    println!(
        "\n{name}: {} questions, {} of them counted",
        asked.len(),
        odd.len()
    );
    println!("| scores | prior | temperature | accuracy | calibration error | log loss |");
    println!("|---|---|---|---|---|---|");
    for (scores, way, prior_weight) in [
        ("as given, with the stop token", 0, 0.0),
        ("all spellings", 1, 0.0),
        ("all spellings", 1, 0.5),
        ("all spellings", 1, 1.0),
    ] {
        for fitted in [false, true] {
            let mut judgement = Judgement {
                prior_weight,
                ..Judgement::default()
            };
            if fitted {
                judgement.temperature = best_temperature(&even, way, judgement);
            }
            let (accuracy, error, loss) = measure(&odd, way, judgement);
            println!(
                "| {scores} | {prior_weight} | {:.2} | {accuracy:.4} | {error:.4} | {loss:.4} |",
                judgement.temperature
            );
        }
    }
    println!("\n| probability | questions | right |\n|---|---|---|");
    let bins = bins(&odd, 1, Judgement::default());
    for (at, (count, right, _)) in bins.iter().enumerate().filter(|(_, bin)| bin.0 > 0) {
        println!(
            "| {:.1} to {:.1} | {count} | {right} |",
            at as f64 / 10.0,
            (at + 1) as f64 / 10.0
        );
    }
    println!("\n| margin | left unsure | of these wrong | wrong of the rest |\n|---|---|---|---|");
    for margin in [0.0, 0.05, 0.1, 0.2, 0.3, 0.5] {
        let judged = odd.iter().map(|asked| {
            let judgement = Judgement {
                margin,
                ..Judgement::default()
            };
            let judged = judgement.judge(&asked.scores[1], None);
            (judged.unsure, judged.best != asked.right)
        });
        let (unsure, sure): (Vec<_>, Vec<_>) = judged.partition(|(unsure, _)| *unsure);
        let wrong = |list: &[(bool, bool)]| list.iter().filter(|(_, wrong)| *wrong).count();
        println!(
            "| {margin} | {} | {} | {} |",
            unsure.len(),
            wrong(&unsure),
            wrong(&sure)
        );
    }
}

/// Count, right ones and sum of probabilities by tenths of the probability.
fn bins(asked: &[&Asked], way: usize, judgement: Judgement) -> [(usize, usize, f64); 10] {
    let mut bins = [(0, 0, 0.0); 10];
    for asked in asked {
        let judged = judgement.judge(&asked.scores[way], Some(&asked.scores[2]));
        let probability = judged.probabilities[judged.best];
        let bin = &mut bins[((probability * 10.0) as usize).min(9)];
        bin.0 += 1;
        bin.1 += usize::from(judged.best == asked.right);
        bin.2 += probability;
    }
    bins
}

/// Accuracy, expected calibration error over ten bins (Guo et al. 2017), mean log loss.
fn measure(asked: &[&Asked], way: usize, judgement: Judgement) -> (f64, f64, f64) {
    let bins = bins(asked, way, judgement);
    let count = asked.len() as f64;
    let right: usize = bins.iter().map(|bin| bin.1).sum();
    let error: f64 = bins.iter().map(|bin| (bin.1 as f64 - bin.2).abs()).sum();
    let loss: f64 = asked
        .iter()
        .map(|asked| {
            let judged = judgement.judge(&asked.scores[way], Some(&asked.scores[2]));
            -judged.probabilities[asked.right].max(1e-12).ln()
        })
        .sum();
    (right as f64 / count, error / count, loss / count)
}

/// The temperature with the least log loss.
fn best_temperature(asked: &[&Asked], way: usize, judgement: Judgement) -> f64 {
    let loss = |temperature: f64| {
        measure(
            asked,
            way,
            Judgement {
                temperature,
                ..judgement
            },
        )
        .2
    };
    let candidates = (4..=80).map(|step| f64::from(step) / 20.0);
    candidates
        .min_by(|a, b| loss(*a).total_cmp(&loss(*b)))
        .unwrap_or(1.0)
}
