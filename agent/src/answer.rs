//! One question, about a picture or without one: from the file to the report of its answer.

use crate::cli::{AnswerArgs, Global};
use crate::fault::Fault;
use crate::mind::spelling;
use crate::npy;
use crate::progress::Progress;
use crate::remark::remark;
use crate::threads;
use nix::sys::resource::{UsageWho, getrusage};
use ocelli_runtime::image::{ImageError, PixelValues, Rgb8};
use ocelli_runtime::prompt::{Message, Role};
use ocelli_runtime::{
    FinishReason, PromptProgress, PromptRequest, PromptStats, Session, Stages, Vlm,
};
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// A session with what reports about it need to know.
pub struct Asker<'a> {
    /// Flags every verb understands.
    pub global: &'a Global,
    /// How the answer is made.
    pub args: &'a AnswerArgs,
    vlm: &'a Vlm,
    session: Session,
    load: Duration,
}

/// The answer and its numbers.
#[derive(Debug)]
pub struct Answer {
    /// The text without leading blanks.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Time of all decode steps.
    pub decode: Duration,
    /// Number of decode steps.
    pub steps: usize,
}

impl<'a> Asker<'a> {
    /// Starts a conversation on a loaded model. `load` is how long loading took.
    ///
    /// # Errors
    ///
    /// An engine that cannot start.
    pub fn new(
        global: &'a Global,
        args: &'a AnswerArgs,
        vlm: &'a Vlm,
        load: Duration,
    ) -> Result<Asker<'a>, Fault> {
        Ok(Asker {
            global,
            args,
            session: vlm.session()?,
            vlm,
            load,
        })
    }

    /// Runs question and picture, if there is one, through the model up to the answer. `name` says
    /// on the progress line which picture it is.
    ///
    /// # Errors
    ///
    /// A prompt that cannot be used, engine faults.
    pub fn prompt<'p>(
        &mut self,
        image: impl Into<Option<&'p Rgb8>>,
        name: &str,
        question: &str,
        progress: &mut Progress,
    ) -> Result<PromptStats, Fault> {
        let system = self
            .args
            .system
            .iter()
            .map(|text| Message::text(Role::System, text));
        let image = image.into();
        let user = match image {
            Some(_) => Message::image_and_text(question),
            None => Message::text(Role::User, question),
        };
        let messages: Vec<Message> = system.chain([user]).collect();
        let request = PromptRequest {
            messages: &messages,
            images: image.map_or(&[], std::slice::from_ref),
            max_tiles: self.args.max_tiles,
            answer_tokens: self.args.max_tokens,
            keep_stages: self.args.dump_stages.is_some(),
        };
        let stats = self.session.prompt(&request, &mut |step| match step {
            PromptProgress::Encode(done, total) => {
                progress.show(&format!("{name}: encoding tile {}/{total}", done + 1));
            }
            PromptProgress::Prefill(done, total) => {
                progress.show(&format!("{name}: reading prompt {done}/{total}"));
            }
        })?;
        progress.clear();
        if let (Some(dir), Some(stages)) = (&self.args.dump_stages, self.session.stages()) {
            dump(dir, stages, self.vlm).map_err(|source| Fault::File {
                path: dir.clone(),
                source,
            })?;
        }
        Ok(stats)
    }

    /// Generates the answer, handing out text as it becomes certain.
    ///
    /// # Errors
    ///
    /// Sampling settings out of range, engine faults, an output that cannot be written.
    fn generate(&mut self, mut emit: impl FnMut(&str) -> io::Result<()>) -> Result<Answer, Fault> {
        let mut generation = self.session.generate(self.args.generate_options())?;
        let mut text = String::new();
        while let Some(piece) = generation.next_piece()? {
            let new = if text.is_empty() {
                piece.text.trim_start()
            } else {
                piece.text
            };
            text.push_str(new);
            emit(new)?;
        }
        let (decode, steps) = generation.decode_time();
        Ok(Answer {
            text,
            tokens: generation.tokens().to_vec(),
            finish: generation.finish_reason().unwrap_or(FinishReason::Length),
            decode,
            steps,
        })
    }

    /// Generates the answer and prints it as it becomes certain, without the end of the line; with
    /// `--json` nothing is printed.
    ///
    /// # Errors
    ///
    /// See [`Asker::generate`].
    pub fn say(&mut self) -> Result<Answer, Fault> {
        let json = self.global.json;
        let mut out = io::stdout();
        self.generate(|text| {
            if json {
                return Ok(());
            }
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }

    /// Weighs closed answers, each in all its spellings.
    ///
    /// # Errors
    ///
    /// An empty choice, engine faults.
    pub fn weigh(&mut self, choices: &[String]) -> Result<Vec<f64>, Fault> {
        let spellings: Vec<Vec<String>> = choices
            .iter()
            .map(|choice| spelling::of_text(choice))
            .collect();
        Ok(self.session.weigh(&spellings)?)
    }

    /// The fields every JSON report has.
    pub fn report(&self, image: &str, stats: &PromptStats, decode: Duration) -> Map<String, Value> {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let fields = json!({
            "image": image,
            "prompt_tokens": stats.prompt_tokens,
            "image_tokens": stats.image_tokens,
            "tiles": stats.frames,
            "model": self.vlm.name(),
            "precision": ocelli_runtime::Precision::from(self.global.precision).name(),
            "weights": self.vlm.weights_name(),
            "kernel": self.vlm.kernel_name(),
            "threads": self.vlm.n_threads(),
            "phase_threads": threads::json(self.vlm.thread_plan()),
            "timing_ms": {
                "load": ms(self.load),
                "preprocess": ms(stats.preprocess),
                "encode": ms(stats.encode),
                "prefill": ms(stats.prefill),
                "decode": ms(decode),
            },
            "peak_rss_bytes": peak_rss_bytes(),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => unreachable!("the literal above is an object"),
        }
    }

    /// The report of a generated answer.
    pub fn answer_report(
        &self,
        image: &str,
        stats: &PromptStats,
        answer: &Answer,
    ) -> Map<String, Value> {
        let mut report = self.report(image, stats, answer.decode);
        report.insert("text".into(), json!(answer.text.trim_end()));
        report.insert("token_ids".into(), json!(answer.tokens));
        report.insert("finish_reason".into(), json!(answer.finish.name()));
        report.insert(
            "decode_tokens_per_second".into(),
            json!(tokens_per_second(answer.steps, answer.decode)),
        );
        report
    }

    /// Says on stderr how long each stage took, with `--verbose`.
    pub fn remark(&self, stats: &PromptStats, answer: &Answer) {
        if self.global.verbose {
            let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
            remark!(
                "ocelli: {} frames encoded in {:.0} ms, {} prompt tokens in {:.0} ms, \
                 {} tokens decoded at {:.1} a second, peak {:.0} MB",
                stats.frames,
                ms(stats.encode),
                stats.prompt_tokens,
                ms(stats.prefill),
                answer.tokens.len(),
                tokens_per_second(answer.steps, answer.decode),
                peak_rss_bytes() as f64 / 1e6
            );
        }
    }
}

/// Reads a picture file.
///
/// # Errors
///
/// [`Fault::Image`].
pub fn open(path: &Path) -> Result<Rgb8, Fault> {
    Rgb8::open(path).map_err(|source| Fault::Image {
        path: path.to_path_buf(),
        source,
    })
}

/// A camera's picture as the model takes it.
///
/// # Errors
///
/// A picture over the limits of [`Rgb8`].
pub fn from_camera(picture: ocelli_camera::Rgb) -> Result<Rgb8, ImageError> {
    let (width, height) = (picture.width as usize, picture.height as usize);
    Rgb8::new(width, height, picture.pixels)
}

/// Decode steps a second; 0 when there was none.
pub fn tokens_per_second(steps: usize, decode: Duration) -> f64 {
    if steps == 0 {
        0.0
    } else {
        steps as f64 / decode.as_secs_f64().max(1e-9)
    }
}

/// The most memory this process ever had resident, mapped files included.
pub fn peak_rss_bytes() -> u64 {
    // The kernel reports kilobytes.
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| {
        u64::try_from(usage.max_rss()).unwrap_or(0) * 1024
    })
}

/// Writes one JSON line to stdout.
///
/// # Errors
///
/// An output that cannot be written.
pub fn print_json(fields: Map<String, Value>) -> io::Result<()> {
    writeln!(io::stdout(), "{}", Value::Object(fields))
}

/// Writes the stages of a prompt as `.npy` files.
fn dump(dir: &Path, stages: &Stages, vlm: &Vlm) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let ids = stages.input_ids.iter().map(|id| i64::from(*id));
    npy::write_i64(&dir.join("input_ids.npy"), &[stages.input_ids.len()], ids)?;
    if let Some(preprocess) = vlm.preprocess() {
        let pixels = PixelValues::new(preprocess);
        let side = stages.tile_size;
        npy::write_f32(
            &dir.join("pixel_values.npy"),
            &[stages.frames.len(), 3, side, side],
            stages.frames.iter().flat_map(|frame| pixels.to_chw(frame)),
        )?;
        let hidden = vlm.config().text.hidden_size;
        npy::write_f32(
            &dir.join("image_features.npy"),
            &[stages.image_features.len() / hidden, hidden],
            stages.image_features.iter().copied(),
        )?;
    }
    let logits = stages.logits.iter().copied();
    npy::write_f32(&dir.join("logits.npy"), &[stages.logits.len()], logits)
}
