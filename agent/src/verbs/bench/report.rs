//! The figures of a measurement, each beside the machine's limit.

use super::machine::Limits;
use super::rounds::{Lengths, Series};
use super::work::Work;
use crate::threads;
use ocelli_runtime::Vlm;
use serde_json::{Map, Value, json};
use std::fmt;
use std::time::Duration;

/// What was measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) load: Duration,
    /// Seconds; `None` for a model that reads text only.
    pub(super) encode: Option<Series>,
    /// Seconds.
    pub(super) prefill: Series,
    /// Tokens a second.
    pub(super) decode_rate: Series,
    /// Seconds.
    pub(super) first_token: Option<Series>,
    pub(super) peak_anonymous_bytes: u64,
    pub(super) peak_rss_bytes: u64,
}

/// A measurement and all that it is to be held against.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) vlm: &'a Vlm,
    pub(super) lengths: Lengths,
    pub(super) kv_bytes: usize,
    /// Of the session, and of the kernels on all threads.
    pub(super) scratch_bytes: usize,
    pub(super) measured: Measured,
    pub(super) limits: Limits,
    /// `None` without a pack.
    pub(super) work: Option<Work>,
}

/// What a stage reached of a limit.
#[derive(Clone, Copy, Debug)]
struct Reached {
    rate: f64,
    limit: f64,
    unit: &'static str,
}

impl Report<'_> {
    /// What encode, prefill and decode reached.
    fn reached(&self) -> Option<[Option<Reached>; 3]> {
        let work = self.work?;
        let measured = &self.measured;
        let arithmetic = |macs: f64, time: &Series| Reached {
            rate: 2.0 * macs / time.median(),
            limit: self.limits.int8_ops_per_second,
            unit: "Gop/s",
        };
        let encode = work.encode_macs.zip(measured.encode.as_ref());
        let decode = Reached {
            rate: work.decode_bytes * measured.decode_rate.median(),
            limit: self.limits.read_bytes_per_second,
            unit: "GB/s",
        };
        Some([
            encode.map(|(macs, time)| arithmetic(macs, time)),
            Some(arithmetic(work.prefill_macs, &measured.prefill)),
            Some(decode),
        ])
    }

    /// Bytes of the mapped file.
    fn file_bytes(&self) -> usize {
        let pack = self.vlm.pack().filter(|pack| pack.is_file_backed());
        pack.map_or(0, |pack| pack.len())
    }

    /// The report as the fields of one JSON object.
    pub(super) fn json(&self) -> Map<String, Value> {
        let (measured, limits) = (&self.measured, &self.limits);
        let (encode, first_token) = (measured.encode.as_ref(), measured.first_token.as_ref());
        let milliseconds = |series: &Series| series.range().map(|seconds| seconds * 1e3);
        let fields = json!({
            "model": self.vlm.name(),
            "kernel": self.vlm.kernel_name(),
            "threads": self.vlm.n_threads(),
            "phase_threads": threads::json(self.vlm.thread_plan()),
            "weights": self.vlm.weights_name(),
            "load_ms": measured.load.as_secs_f64() * 1e3,
            "encode_tile_ms": encode.map(|series| series.median() * 1e3),
            "prefill_tokens": self.lengths.prefill,
            "prefill_ms": measured.prefill.median() * 1e3,
            "decode_tokens": self.lengths.decode,
            "all_logits": self.lengths.all_logits,
            "decode_tokens_per_second": measured.decode_rate.median(),
            "start_to_first_token_ms": first_token.map(|series| series.median() * 1e3),
            "range": {
                "encode_tile_ms": encode.map(milliseconds),
                "prefill_ms": milliseconds(&measured.prefill),
                "decode_tokens_per_second": measured.decode_rate.range(),
                "start_to_first_token_ms": first_token.map(milliseconds),
            },
            "peak_anonymous_bytes": measured.peak_anonymous_bytes,
            "peak_rss_bytes": measured.peak_rss_bytes,
            "kv_bytes": self.kv_bytes,
            "scratch_bytes": self.scratch_bytes,
            "bytes_per_token": self.work.map(|work| work.token_bytes),
            "pack_bytes": self.file_bytes(),
            "limits": {
                "read_bytes_per_second": limits.read_bytes_per_second,
                "read_buffer_bytes": limits.buffer_bytes,
                "int8_ops_per_second": limits.int8_ops_per_second,
                "int8_instruction": limits.instruction,
            },
            "work": self.work.map(|work| json!({
                "encode_macs": work.encode_macs,
                "prefill_macs": work.prefill_macs,
                "decode_bytes_per_token": work.decode_bytes,
            })),
            "reached": self.reached().map(|reached| {
                let [encode, prefill, decode] = reached.map(|stage| stage.map(Reached::share));
                json!({ "encode": encode, "prefill": prefill, "decode": decode })
            }),
        });
        match fields {
            Value::Object(fields) => fields,
            _ => unreachable!("the literal above is an object"),
        }
    }
}

impl Reached {
    fn share(self) -> f64 {
        self.rate / self.limit
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:6.1} of {:6.1} {} = {:3.0} %",
            self.rate / 1e9,
            self.limit / 1e9,
            self.unit,
            self.share() * 100.0
        )
    }
}

/// A table: figure, smallest and largest run, the machine's limit.
impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vlm, measured, limits) = (self.vlm, &self.measured, &self.limits);
        writeln!(
            f,
            "model    {}, {}, kernel {}, {} threads",
            vlm.name(),
            vlm.weights_name(),
            vlm.kernel_name(),
            vlm.n_threads()
        )?;
        writeln!(f, "threads  {}", vlm.thread_plan())?;
        let row =
            |name: &str, series: &Series, factor: f64, unit: &str, reached: Option<Reached>| {
                let [low, high] = series.range().map(|value| value * factor);
                let median = series.median() * factor;
                let beside = reached.map_or_else(String::new, |r| format!("  {r}"));
                format!("{name:8} {median:9.1} {unit:8} [{low:.1} to {high:.1}]{beside}")
            };
        let reached = self.reached();
        let at = |stage: usize| reached.and_then(|reached| reached[stage]);
        if let (Some(encode), Some(vision)) = (&measured.encode, &vlm.config().vision) {
            let line = row("encode", encode, 1e3, "ms", at(0));
            writeln!(f, "{line}  a tile of {} px", vision.image_size)?;
        }
        writeln!(
            f,
            "{}  {} tokens",
            row("prefill", &measured.prefill, 1e3, "ms", at(1)),
            self.lengths.prefill
        )?;
        writeln!(
            f,
            "{}  {} tokens, {}",
            row("decode", &measured.decode_rate, 1.0, "tokens/s", at(2)),
            self.lengths.decode,
            match self.lengths.all_logits {
                true => "all logits",
                false => "each the likeliest",
            }
        )?;
        writeln!(f, "load     {:9.1} ms", measured.load.as_secs_f64() * 1e3)?;
        if let Some(first_token) = &measured.first_token {
            let line = row("start", first_token, 1e3, "ms", None);
            writeln!(f, "{line}  process start to first token")?;
        }
        writeln!(
            f,
            "memory   {:9.1} MB       anonymous at most, beside a mapped pack of {:.1} MB; \
             of it keys and values {:.1} MB, scratch {:.1} MB",
            measured.peak_anonymous_bytes as f64 / 1e6,
            self.file_bytes() as f64 / 1e6,
            self.kv_bytes as f64 / 1e6,
            self.scratch_bytes as f64 / 1e6
        )?;
        writeln!(
            f,
            "limits   memory reads {:.1} GB/s ({} MB), int8 {:.1} Gop/s ({})",
            limits.read_bytes_per_second / 1e9,
            limits.buffer_bytes >> 20,
            limits.int8_ops_per_second / 1e9,
            limits.instruction
        )
    }
}
