//! Which files of a repository a model needs.

use super::listing::{Listing, RemoteFile};
use std::fmt;
use std::str::FromStr;

/// Small files that any form of a model directory may need.
const SMALL: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// The one file of unsharded weights.
const SINGLE: &str = "model.safetensors";
/// What lies in which shard.
const INDEX: &str = "model.safetensors.index.json";
/// The parts of an ONNX export in front of its decoder.
const ONNX_PARTS: [&str; 2] = ["vision_encoder", "embed_tokens"];
/// Names of its decoder, the most wanted first. Exporters that did not merge it wrote the other two;
/// either holds every weight, so that one of them is enough.
const ONNX_DECODERS: [&str; 3] = [
    "decoder_model_merged",
    "decoder_model",
    "decoder_with_past_model",
];
/// Names of a text model in one ONNX file, the most wanted first.
const ONNX_TEXTS: [&str; 4] = [
    "model",
    ONNX_DECODERS[0],
    ONNX_DECODERS[1],
    ONNX_DECODERS[2],
];
/// Folders that may hold ONNX files.
const ONNX_FOLDERS: [&str; 2] = ["onnx/", ""];
/// GGUF and ONNX variants, the most wanted first: what loses least when it is packed in int8.
const GGUF_WANTED: [&str; 6] = ["q8_0", "f16", "bf16", "f32", "q6_k", "q4_k_m"];
const ONNX_WANTED: [&str; 9] = [
    "fp16",
    "fp32",
    "q8",
    "int8",
    "uint8",
    "quantized",
    "q4f16",
    "q4",
    "bnb4",
];

/// A form that models are published in, and perhaps which variant of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    /// `model.safetensors`, whole or in shards.
    Safetensors,
    /// A GGUF file and its projector.
    Gguf(Option<String>),
    /// The ONNX export: vision encoder, embedding table and decoder; or a text model in one file,
    /// whatever that is called.
    Onnx(Option<String>),
    /// A pack, ready to use.
    Pack(Option<String>),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        let (form, variant) = match text.split_once(':') {
            Some((form, variant)) if !variant.is_empty() => (form, Some(variant.to_lowercase())),
            Some((form, _)) => (form, None),
            None => (text, None),
        };
        match (form, variant) {
            ("safetensors", None) => Ok(Format::Safetensors),
            ("gguf", variant) => Ok(Format::Gguf(variant)),
            ("onnx", variant) => Ok(Format::Onnx(variant)),
            ("pack", variant) => Ok(Format::Pack(variant)),
            _ => Err(format!(
                "{text:?} is no format; write safetensors, gguf, onnx or pack, the last three perhaps with a variant as in gguf:q8_0"
            )),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (form, variant) = match self {
            Format::Safetensors => ("safetensors", &None),
            Format::Gguf(variant) => ("gguf", variant),
            Format::Onnx(variant) => ("onnx", variant),
            Format::Pack(variant) => ("pack", variant),
        };
        match variant {
            Some(variant) => write!(f, "{form}:{variant}"),
            None => f.write_str(form),
        }
    }
}

/// Why no files were chosen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {wanted} model among the files of {commit}: {reason}")]
pub struct ChoiceError {
    /// The format that was wanted.
    pub wanted: String,
    /// The commit that was looked at.
    pub commit: String,
    /// What is missing, and what there is.
    pub reason: String,
}

/// The files a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Their form, with the variant.
    pub format: Format,
    /// The files, small ones first.
    pub files: Vec<RemoteFile>,
    /// The file to open; none where it is the folder.
    pub main: Option<String>,
    /// The projector of a GGUF model.
    pub projector: Option<String>,
}

impl Choice {
    /// Chooses among the files of a listing. Without a format it is safetensors, else a pack, else
    /// GGUF, else ONNX: the first there is.
    ///
    /// # Errors
    ///
    /// There are no such files.
    pub fn make(listing: &Listing, format: Option<&Format>) -> Result<Choice, ChoiceError> {
        let fail = |reason| ChoiceError {
            wanted: format.map_or_else(|| "usable".to_owned(), Format::to_string),
            commit: listing.commit.clone(),
            reason,
        };
        if let Some(format) = format {
            return choose(listing, format).map_err(fail);
        }
        let forms = [
            Format::Safetensors,
            Format::Pack(None),
            Format::Gguf(None),
            Format::Onnx(None),
        ];
        forms
            .iter()
            .find_map(|format| choose(listing, format).ok())
            .ok_or_else(|| {
                fail(
                    "it has neither model.safetensors nor a pack, a GGUF file or an ONNX export"
                        .to_owned(),
                )
            })
    }

    /// Bytes of all files, as far as the list says.
    pub fn bytes(&self) -> u64 {
        let sizes = self.files.iter().filter_map(|file| file.size);
        sizes.fold(0, u64::saturating_add)
    }
}

fn choose(listing: &Listing, format: &Format) -> Result<Choice, String> {
    let mut choice = match format {
        Format::Safetensors => safetensors(listing),
        Format::Gguf(variant) => gguf(listing, variant.as_deref()),
        Format::Onnx(variant) => onnx(listing, variant.as_deref()),
        Format::Pack(variant) => pack(listing, variant.as_deref()),
    }?;
    choice
        .files
        .sort_by_key(|file| file.size.unwrap_or(u64::MAX));
    Ok(choice)
}

fn small(listing: &Listing) -> Vec<RemoteFile> {
    let named = SMALL.iter().filter_map(|name| listing.file(name));
    named.cloned().collect()
}

fn safetensors(listing: &Listing) -> Result<Choice, String> {
    let mut files = small(listing);
    if let Some(single) = listing.file(SINGLE) {
        files.push(single.clone());
    } else {
        let is_shard = |file: &&RemoteFile| {
            file.path.starts_with("model-")
                && file.path.ends_with(".safetensors")
                && !file.path.contains('/')
        };
        let shards: Vec<_> = listing.files.iter().filter(is_shard).cloned().collect();
        if shards.is_empty() {
            return Err(format!("{SINGLE} is missing"));
        }
        files.extend(listing.file(INDEX).cloned());
        files.extend(shards);
    }
    match listing.file("config.json") {
        Some(_) => Ok(Choice {
            format: Format::Safetensors,
            files,
            main: None,
            projector: None,
        }),
        None => Err("config.json is missing".to_owned()),
    }
}

/// The one of some files whose name has a variant, or the most wanted variant.
fn pick<'a>(
    files: &[&'a RemoteFile],
    variant: Option<&str>,
    wanted: &[&str],
) -> Option<&'a RemoteFile> {
    let has = |file: &RemoteFile, variant: &str| {
        let name = file.path.to_lowercase();
        let stem = name
            .rsplit_once('.')
            .map_or(name.as_str(), |(stem, _)| stem);
        stem.strip_suffix(variant)
            .is_some_and(|rest| rest.ends_with(['-', '_', '.']))
    };
    match variant {
        Some(variant) => files.iter().find(|file| has(file, variant)).copied(),
        None => wanted
            .iter()
            .find_map(|variant| files.iter().find(|file| has(file, variant)))
            .or(files.first().filter(|_| files.len() == 1))
            .copied(),
    }
}

fn names(files: &[&RemoteFile]) -> String {
    let names: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    match names.is_empty() {
        true => "there is none".to_owned(),
        false => format!("there are {}", names.join(", ")),
    }
}

fn gguf(listing: &Listing, variant: Option<&str>) -> Result<Choice, String> {
    let all: Vec<_> = listing
        .files
        .iter()
        .filter(|file| file.path.to_lowercase().ends_with(".gguf"))
        .collect();
    let is_projector = |file: &&RemoteFile| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        name.to_lowercase().contains("mmproj")
    };
    let (projectors, texts): (Vec<_>, Vec<_>) = all.iter().copied().partition(is_projector);
    let text = pick(&texts, variant, &GGUF_WANTED)
        .ok_or_else(|| format!("no GGUF file is of that variant; {}", names(&texts)))?;
    let projector =
        pick(&projectors, variant, &[]).or_else(|| pick(&projectors, None, &GGUF_WANTED));
    Ok(Choice {
        format: Format::Gguf(variant.map(str::to_owned)),
        files: std::iter::once(text).chain(projector).cloned().collect(),
        main: Some(text.path.clone()),
        projector: projector.map(|file| file.path.clone()),
    })
}

/// The file name of a part of an ONNX export.
fn onnx_name(part: &str, variant: &str) -> String {
    match variant {
        "fp32" => format!("{part}.onnx"),
        variant => format!("{part}_{variant}.onnx"),
    }
}

/// The files of a part; none where it is not published.
fn onnx_part(listing: &Listing, part: &str, variant: &str) -> Option<Vec<RemoteFile>> {
    let name = onnx_name(part, variant);
    let mut graphs = ONNX_FOLDERS.iter();
    let graph = graphs.find_map(|folder| listing.file(&format!("{folder}{name}")))?;
    // Weights outside the graph: `.onnx_data`, `.onnx_data_1` and so on, or `.onnx.data`.
    let is_data = |file: &&RemoteFile| {
        let rest = file.path.strip_prefix(&graph.path);
        rest.is_some_and(|rest| rest.starts_with("_data") || rest.starts_with(".data"))
    };
    let data = listing.files.iter().filter(is_data);
    Some(std::iter::once(graph).chain(data).cloned().collect())
}

fn onnx(listing: &Listing, variant: Option<&str>) -> Result<Choice, String> {
    let whole = |decoder: &str, variant: &str| {
        let parts = ONNX_PARTS.iter().copied().chain([decoder]);
        let files = parts.map(|part| onnx_part(listing, part, variant));
        let files: Option<Vec<_>> = files.collect();
        Some((variant.to_owned(), files?.concat()))
    };
    let variants = match &variant {
        Some(variant) => std::slice::from_ref(variant),
        None => &ONNX_WANTED,
    };
    let found = ONNX_DECODERS
        .iter()
        .find_map(|decoder| variants.iter().find_map(|variant| whole(decoder, variant)));
    // A decoder beside any part of what sees is not whole without the others.
    let sees = listing.files.iter().any(|file| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        name.ends_with(".onnx") && ONNX_PARTS.iter().any(|part| name.starts_with(part))
    });
    let texts = match sees {
        true => &ONNX_TEXTS[..1],
        false => &ONNX_TEXTS[..],
    };
    let text = |name: &str, variant: &str| {
        let files = onnx_part(listing, name, variant)?;
        Some((variant.to_owned(), files))
    };
    let found = found.or_else(|| {
        texts
            .iter()
            .find_map(|name| variants.iter().find_map(|variant| text(name, variant)))
    });
    let (variant, weights) = found.ok_or_else(|| {
        let here: Vec<_> = listing
            .files
            .iter()
            .filter(|file| file.path.ends_with(".onnx"))
            .collect();
        let path = |part: &&str| format!("onnx/{}", onnx_name(part, variant.unwrap_or("fp32")));
        format!(
            "an ONNX export is {} and one of {}, or of a text model {} or one of these alone{}; {}",
            ONNX_PARTS.each_ref().map(path).join(", "),
            ONNX_DECODERS.each_ref().map(path).join(", "),
            path(&ONNX_TEXTS[0]),
            match variant {
                Some(_) => "",
                None => ", or these of another variant",
            },
            names(&here)
        )
    })?;
    let mut files = small(listing);
    files.extend(weights);
    Ok(Choice {
        format: Format::Onnx(Some(variant)),
        files,
        main: None,
        projector: None,
    })
}

fn pack(listing: &Listing, variant: Option<&str>) -> Result<Choice, String> {
    let packs: Vec<_> = listing
        .files
        .iter()
        .filter(|file| file.path.ends_with(".ocelli"))
        .collect();
    let pack = pick(&packs, variant, &["int8"])
        .ok_or_else(|| format!("no pack is meant alone; {}", names(&packs)))?;
    let signature = listing.file(&format!("{}.minisig", pack.path));
    Ok(Choice {
        format: Format::Pack(variant.map(str::to_owned)),
        files: std::iter::once(pack).chain(signature).cloned().collect(),
        main: Some(pack.path.clone()),
        projector: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let file = |(at, path): (usize, &&str)| RemoteFile {
            path: (*path).to_owned(),
            size: Some(1000 - at as u64),
            id: None,
        };
        Listing {
            commit: "c".repeat(40),
            licence: None,
            files: paths.iter().enumerate().map(file).collect(),
        }
    }

    fn chosen(paths: &[&str], format: Option<&str>) -> Result<Vec<String>, ChoiceError> {
        let format = format.map(|text| text.parse().unwrap());
        let choice = Choice::make(&listing(paths), format.as_ref())?;
        let mut paths: Vec<_> = choice.files.into_iter().map(|file| file.path).collect();
        paths.sort();
        Ok(paths)
    }

    #[test]
    fn each_format_takes_what_it_needs_and_no_more() {
        let published = [
            "README.md",
            "config.json",
            "tokenizer.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "training_args.bin",
            "onnx/vision_encoder.onnx",
            "onnx/embed_tokens.onnx",
            "onnx/decoder_model_merged.onnx",
            "onnx/decoder_model_merged.onnx_data",
            "onnx/vision_encoder_q4.onnx",
            "onnx/embed_tokens_q4.onnx",
            "onnx/decoder_model_merged_q4.onnx",
            "onnx/decoder_model_merged_q4f16.onnx",
        ];
        let plain = ["config.json", "model.safetensors", "tokenizer.json"];
        assert_eq!(chosen(&published, None).unwrap(), plain);
        assert_eq!(
            chosen(&published, Some("onnx")).unwrap(),
            [
                "config.json",
                "onnx/decoder_model_merged.onnx",
                "onnx/decoder_model_merged.onnx_data",
                "onnx/embed_tokens.onnx",
                "onnx/vision_encoder.onnx",
                "tokenizer.json"
            ]
        );
        assert_eq!(
            chosen(&published, Some("onnx:q4")).unwrap()[1],
            "onnx/decoder_model_merged_q4.onnx"
        );
        assert!(chosen(&published, Some("onnx:q4f16")).is_err());
        assert!(chosen(&published, Some("gguf")).is_err());
    }

    #[test]
    fn a_text_model_in_one_onnx_file_comes_with_its_data_from_either_folder() {
        for folder in ["onnx/", ""] {
            let published = [
                "model.onnx",
                "model.onnx_data",
                "model_fp16.onnx",
                "model_fp16.onnx.data",
                "model_q4f16.onnx",
                "model_q4f16.onnx_data",
                "model_quantized.onnx",
            ]
            .map(|name| format!("{folder}{name}"));
            let published: Vec<&str> = published.iter().map(String::as_str).collect();
            let all = [&["config.json", "tokenizer.json"], &published[..]].concat();
            for (format, wanted) in [
                (None, &published[2..4]),
                (Some("onnx:fp32"), &published[..2]),
                (Some("onnx:q4f16"), &published[4..6]),
                (Some("onnx:quantized"), &published[6..]),
            ] {
                let mut found = chosen(&all, format).unwrap();
                found.retain(|path| !path.ends_with(".json"));
                assert_eq!(found, wanted, "{format:?}");
            }
            let error = chosen(&all, Some("onnx:int8")).unwrap_err().to_string();
            assert!(
                error.contains(
                    "of a text model onnx/model_int8.onnx or one of these alone; there are"
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn a_text_model_may_be_called_a_decoder() {
        for (published, format, wanted) in [
            (
                &["decoder_model_merged.onnx", "decoder_model_merged_q4.onnx"][..],
                None,
                &["decoder_model_merged.onnx"][..],
            ),
            (
                &["decoder_model_merged.onnx", "decoder_model_merged_q4.onnx"],
                Some("onnx:q4"),
                &["decoder_model_merged_q4.onnx"],
            ),
            (
                &[
                    "decoder_model_merged_bnb4.onnx",
                    "decoder_model_merged_bnb4.onnx_data",
                ],
                None,
                &[
                    "decoder_model_merged_bnb4.onnx",
                    "decoder_model_merged_bnb4.onnx_data",
                ],
            ),
            (
                &["decoder_model.onnx", "decoder_with_past_model.onnx"],
                Some("onnx"),
                &["decoder_model.onnx"],
            ),
            (
                &["decoder_model_merged_fp16.onnx", "model_quantized.onnx"],
                None,
                &["model_quantized.onnx"],
            ),
        ] {
            for folder in ["onnx/", ""] {
                let in_folder = |name: &&str| format!("{folder}{name}");
                let published: Vec<_> = published.iter().map(in_folder).collect();
                let published: Vec<_> = published.iter().map(String::as_str).collect();
                let all = [&["config.json"], &published[..]].concat();
                let mut found = chosen(&all, format).unwrap();
                found.retain(|path| path != "config.json");
                let wanted: Vec<_> = wanted.iter().map(in_folder).collect();
                assert_eq!(found, wanted, "{format:?} of {all:?}");
            }
        }
        let seeing = [
            "config.json",
            "embed_tokens.onnx",
            "decoder_model_merged.onnx",
        ];
        assert!(chosen(&seeing, Some("onnx")).is_err());
    }

    #[test]
    fn the_parts_of_an_export_may_lie_beside_its_configuration() {
        let published = [
            "config.json",
            "decoder_model_merged_q4.onnx",
            "decoder_model_merged_q4.onnx.data",
            "embed_tokens_q4.onnx",
            "vision_encoder_q4.onnx",
        ];
        assert_eq!(chosen(&published, None).unwrap(), published);
    }

    #[test]
    fn of_an_unmerged_decoder_one_file_is_enough() {
        let published = [
            "config.json",
            "onnx/vision_encoder_fp16.onnx",
            "onnx/vision_encoder_q4.onnx",
            "onnx/embed_tokens_fp16.onnx",
            "onnx/embed_tokens_q4.onnx",
            "onnx/decoder_with_past_model_fp16.onnx",
            "onnx/decoder_with_past_model_fp16.onnx_data",
            "onnx/decoder_with_past_model_q4.onnx",
            "onnx/decoder_model_fp16.onnx",
            "onnx/decoder_model_fp16.onnx_data",
            "onnx/decoder_model_fp16.onnx_data_1",
            "onnx/decoder_model_q4.onnx",
        ];
        let decoders = |paths: &[&str], format| -> Vec<String> {
            let mut found = chosen(paths, format).unwrap();
            assert_eq!(found.remove(0), "config.json");
            found.retain(|path| path.starts_with("onnx/decoder"));
            found
        };
        let first = &published[8..11];
        assert_eq!(decoders(&published, None), first);
        assert_eq!(decoders(&published, Some("onnx:fp16")), first);
        assert_eq!(decoders(&published, Some("onnx:q4")), &published[11..]);
        // The one behind a cache, where it is alone.
        let later = &published[5..7];
        assert_eq!(decoders(&published[..8], None), later);

        let merged = "onnx/decoder_model_merged_q4.onnx";
        let both = [&published[..], &[merged]].concat();
        for format in ["onnx", "onnx:q4"] {
            assert_eq!(decoders(&both, Some(format)), [merged]);
        }
        assert_eq!(decoders(&both, Some("onnx:fp16")), first);

        for (published, format, wanted) in [
            (
                &published[3..],
                "onnx",
                "onnx/vision_encoder.onnx, onnx/embed_tokens.onnx and one of onnx/decoder_model_merged.onnx, onnx/decoder_model.onnx, onnx/decoder_with_past_model.onnx, or of a text model onnx/model.onnx or one of these alone, or these of another variant; there are onnx/embed_tokens_fp16.onnx,",
            ),
            (
                &published[..5],
                "onnx:q4",
                "one of onnx/decoder_model_merged_q4.onnx, onnx/decoder_model_q4.onnx, onnx/decoder_with_past_model_q4.onnx, or of a text model onnx/model_q4.onnx or one of these alone; there are",
            ),
            (&published[..], "onnx:int8", "onnx/vision_encoder_int8.onnx"),
        ] {
            let error = chosen(published, Some(format)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn shards_come_with_their_index() {
        let published = [
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/model-1.safetensors",
        ];
        let found = chosen(&published, Some("safetensors")).unwrap();
        assert_eq!(found, published[..4]);
    }

    #[test]
    fn a_gguf_file_brings_the_projector_of_its_variant() {
        let published = [
            "SmolVLM-Q8_0.gguf",
            "SmolVLM-f16.gguf",
            "SmolVLM-Q4_K_M.gguf",
            "mmproj-SmolVLM-Q8_0.gguf",
            "mmproj-SmolVLM-f16.gguf",
        ];
        for (format, want) in [
            (None, ["SmolVLM-Q8_0.gguf", "mmproj-SmolVLM-Q8_0.gguf"]),
            (
                Some("gguf:f16"),
                ["SmolVLM-f16.gguf", "mmproj-SmolVLM-f16.gguf"],
            ),
            (
                Some("gguf:Q4_K_M"),
                ["SmolVLM-Q4_K_M.gguf", "mmproj-SmolVLM-Q8_0.gguf"],
            ),
        ] {
            assert_eq!(chosen(&published, format).unwrap(), want, "{format:?}");
        }
        let error = chosen(&published, Some("gguf:q2_k")).unwrap_err();
        assert!(error.to_string().contains("SmolVLM-Q4_K_M.gguf"), "{error}");
    }

    #[test]
    fn a_pack_comes_with_its_signature() {
        let published = ["a.ocelli", "a.ocelli.minisig", "README.md"];
        assert_eq!(chosen(&published, None).unwrap(), published[..2]);
        assert!(chosen(&["a.ocelli", "b.ocelli"], None).is_err());
        let two = chosen(&["x-a.ocelli", "x-b.ocelli"], Some("pack:b")).unwrap();
        assert_eq!(two, ["x-b.ocelli"]);
    }

    #[test]
    fn small_files_come_first() {
        let listing = listing(&["model.safetensors", "config.json", "tokenizer.json"]);
        let choice = Choice::make(&listing, None).unwrap();
        assert_eq!(choice.files.last().unwrap().path, "model.safetensors");
        assert_eq!(choice.bytes(), 1000 + 999 + 998);
    }

    #[test]
    fn formats_have_names() {
        for text in ["safetensors", "gguf", "gguf:q8_0", "onnx:fp16", "pack"] {
            assert_eq!(text.parse::<Format>().unwrap().to_string(), text);
        }
        for text in ["", "pytorch", "safetensors:f16"] {
            assert!(text.parse::<Format>().is_err(), "{text}");
        }
    }
}
