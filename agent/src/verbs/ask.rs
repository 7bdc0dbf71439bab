//! `ocelli ask`: one answer to a question, open or among choices, about a picture or without one.

use crate::answer::{self, Asker, print_json};
use crate::cli::{AskArgs, Global};
use crate::fault::Fault;
use crate::mind::Judgement;
use crate::model;
use crate::progress::Progress;
use crate::remark::remark;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::time::Instant;

/// What is answered when no choice is likely enough.
const UNSURE: &str = "unsure";

/// Runs the verb.
///
/// # Errors
///
/// See [`Fault`].
pub fn run(global: &Global, args: &AskArgs) -> Result<(), Fault> {
    if !(0.0..=1.0).contains(&args.unsure_below) {
        return Err(Fault::Argument(format!(
            "--unsure-below is {}, allowed is 0 to 1",
            args.unsure_below
        )));
    }
    if args.choices.len() == 1 {
        return Err(Fault::Argument(
            "--choices has 1 choice, at least 2 are needed".to_owned(),
        ));
    }
    args.answer.generate_options().sampling.validate()?;
    let mut progress = Progress::new(global);
    let (vlm, load) = model::load(global, &mut progress)?;
    let mut asker = Asker::new(global, &args.answer, &vlm, load)?;
    let image = args.image.as_deref().map(answer::open).transpose()?;
    let asked = Asked {
        image: args.image.as_ref().map(|path| path.display().to_string()),
        question: args.text.as_ref().or(args.question.as_ref()).cloned(),
    };
    let question = asked.question.as_deref().unwrap_or_default();
    let stats = asker.prompt(image.as_ref(), asked.name(), question, &mut progress)?;
    if !args.choices.is_empty() {
        return choose(&mut asker, args, &asked, &stats);
    }
    let answer = asker.say()?;
    if global.json {
        let mut report = asker.answer_report(asked.name(), &stats, &answer);
        asked.add_to(&mut report);
        print_json(report)?;
    } else {
        writeln!(io::stdout())?;
    }
    asker.remark(&stats, &answer);
    Ok(())
}

/// What the reports say was asked.
struct Asked {
    image: Option<String>,
    question: Option<String>,
}

impl Asked {
    /// What the progress line is about.
    fn name(&self) -> &str {
        self.image.as_deref().unwrap_or("question")
    }

    /// Sets the question, and the picture to null if there is none.
    fn add_to(&self, report: &mut Map<String, Value>) {
        report.insert("image".into(), json!(self.image));
        report.insert("question".into(), json!(self.question));
    }
}

fn choose(
    asker: &mut Asker<'_>,
    args: &AskArgs,
    asked: &Asked,
    stats: &ocelli_runtime::PromptStats,
) -> Result<(), Fault> {
    let start = Instant::now();
    let scores = asker.weigh(&args.choices)?;
    let elapsed = start.elapsed();
    let judged = Judgement::default().judge(&scores, None);
    let is_likely = judged.probabilities[judged.best] >= args.unsure_below;
    let best = args
        .choices
        .get(judged.best)
        .filter(|_| is_likely && !judged.unsure);
    let text = best.map_or(UNSURE, String::as_str);
    let choices = args.choices.iter().zip(&judged.probabilities).zip(&scores);
    if asker.global.json {
        let mut report = asker.report(asked.name(), stats, elapsed);
        asked.add_to(&mut report);
        report.insert("text".into(), json!(text));
        report.insert("unsure".into(), json!(best.is_none()));
        let choices = choices.map(|((choice, probability), score)| {
            json!({
                "choice": choice,
                "probability": probability,
                "log_probability": score,
            })
        });
        report.insert("choices".into(), choices.collect::<Value>());
        print_json(report)?;
    } else {
        writeln!(io::stdout(), "{text}")?;
        if asker.global.verbose {
            for ((choice, probability), _) in choices {
                remark!("ocelli: {probability:.3} {choice}");
            }
        }
    }
    Ok(())
}
