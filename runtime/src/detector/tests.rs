use super::*;
use crate::engine::plain::{MAX_INPUT_SIDE, PlainModel};

const SIDE: usize = 32;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/detector")
        .join(name)
}

/// The bytes `tools/reference/detector.py` gives every model.
fn pixels() -> impl Iterator<Item = f32> {
    (0..SIDE * SIDE * 3).map(|i| (i * 37 % 251) as f32)
}

#[test]
fn outputs_equal_onnxruntimes() {
    let text = std::fs::read(fixture("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for (name, channels, scale) in [
        ("mask", ChannelAxis::First, 255.0),
        ("yolo", ChannelAxis::First, 255.0),
        ("grid", ChannelAxis::First, 255.0),
        ("classes", ChannelAxis::Last, 1.0),
    ] {
        let path = fixture(&format!("{name}.onnx"));
        let model = PlainModel::load(&path, Some((SIDE, SIDE))).unwrap();
        assert_eq!(model.input().channels, channels, "{name}");
        let values: Vec<f32> = pixels().map(|v| v / scale).collect();
        let outputs = model.run(&values).unwrap();
        let wanted = &expected[name];
        assert_eq!(
            serde_json::json!(outputs[0].shape),
            wanted["shape"],
            "{name}"
        );
        let every = wanted["every"].as_u64().unwrap() as usize;
        let wanted: Vec<f64> = serde_json::from_value(wanted["values"].clone()).unwrap();
        let got: Vec<f32> = outputs[0].values.iter().copied().step_by(every).collect();
        assert_eq!(got.len(), wanted.len(), "{name}");
        // Observed 3e-6 on values up to 32; a wrong channel order gives over 0.1.
        for (got, wanted) in got.iter().zip(wanted) {
            assert!(
                (f64::from(*got) - wanted).abs() < 1e-4,
                "{name}: {got} {wanted}"
            );
        }
    }
}

#[test]
fn an_open_input_size_has_to_be_said() {
    let error = PlainModel::load(&fixture("mask.onnx"), None).unwrap_err();
    assert!(
        matches!(error, PlainModelError::SizeUnknown { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("\"input\""), "{error}");
    let input = PlainModel::load(&fixture("mask.onnx"), Some((40, 24)))
        .unwrap()
        .input();
    assert_eq!((input.width, input.height), (40, 24));
    let error = PlainModel::load(&fixture("mask.onnx"), Some((MAX_INPUT_SIDE + 1, 8))).unwrap_err();
    assert!(matches!(error, PlainModelError::Input { .. }), "{error}");
}

/// An exporter writes the lengths that an open input leads to between the nodes, as names of theirs.
#[test]
fn lengths_that_a_file_names_between_its_nodes_are_those_of_the_size_it_is_run_at() {
    for (width, height) in [(SIDE, SIDE), (48, 64)] {
        let model = PlainModel::load(&fixture("grid.onnx"), Some((width, height)));
        let model = model.unwrap_or_else(|error| panic!("{error}"));
        let outputs = model.run(&vec![0.5; width * height * 3]).unwrap();
        assert_eq!(outputs[0].shape, [1, 6, width / 8 * height / 8]);
    }
}

#[test]
fn values_of_another_count_are_an_error() {
    let model = PlainModel::load(&fixture("yolo.onnx"), None).unwrap();
    assert!(matches!(
        model.run(&[0.0; 5]),
        Err(PlainModelError::Run { .. })
    ));
}

#[test]
fn files_that_are_no_model_are_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = std::fs::read(fixture("yolo.onnx")).unwrap();
    let path = dir.path().join("x.onnx");
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("text", b"not a model".to_vec()),
        ("cut", good[..good.len() / 2].to_vec()),
        ("no graph inputs", vec![8, 8]),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = PlainModel::load(&path, None).unwrap_err();
        assert!(error.to_string().contains("x.onnx"), "{what}: {error}");
    }
}

fn settings(json: &str) -> DetectorSettings {
    serde_json::from_str(json).unwrap()
}

fn array(shape: &[usize], values: &[f32]) -> Array {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    Array {
        shape: shape.to_vec(),
        values: values.to_vec(),
    }
}

#[test]
fn every_output_form_finds_the_same_thing() {
    let labels = r#""labels": ["none", "person"], "wanted": ["person"], "threshold": 0.4"#;
    // A person of 20 x 10 pixels around (40, 25) in an input of 100 x 50, scored 0.9.
    let cases = [
        (
            "yolo-v8",
            vec![array(
                &[1, 6, 2],
                &[
                    40.0, 7.0, 25.0, 7.0, 20.0, 2.0, 10.0, 2.0, 0.05, 0.3, 0.9, 0.2,
                ],
            )],
        ),
        (
            "yolo-v5",
            vec![array(
                &[1, 2, 7],
                &[
                    40.0, 25.0, 20.0, 10.0, 1.0, 0.05, 0.9, 7.0, 7.0, 2.0, 2.0, 0.1, 0.9, 0.9,
                ],
            )],
        ),
        (
            "ssd",
            vec![
                array(&[1, 2, 2], &[0.1, 0.9, 0.8, 0.2]),
                array(&[1, 2, 4], &[0.3, 0.4, 0.5, 0.6, 0.0, 0.0, 1.0, 1.0]),
            ],
        ),
    ];
    for (form, outputs) in cases {
        let settings = settings(&format!(r#"{{"output": "{form}", {labels}}}"#));
        let found = detection::decode(&settings, &outputs, (100, 50)).unwrap();
        assert_eq!(found.len(), 1, "{form}: {found:?}");
        assert_eq!(found[0].label, "person", "{form}");
        assert!((found[0].score - 0.9).abs() < 1e-6, "{form}");
        let area = found[0].area.unwrap();
        for (got, wanted) in [area.left, area.top, area.right, area.bottom]
            .into_iter()
            .zip([0.3, 0.4, 0.5, 0.6])
        {
            assert!((got - wanted).abs() < 1e-6, "{form}: {area:?}");
        }
    }
}

#[test]
fn boxes_of_one_thing_are_one() {
    let settings = settings(r#"{"output": "ssd", "threshold": 0.1}"#);
    let boxes = [
        0.0,
        0.0,
        0.5,
        0.5, //
        0.02,
        0.0,
        0.5,
        0.5, //
        0.6,
        0.6,
        0.9,
        0.9, //
        0.0,
        0.0,
        f32::NAN,
        0.5,
    ];
    let scores = [0.0, 0.5, 0.0, 0.8, 0.0, 0.3, 0.0, f32::NAN];
    let outputs = [array(&[1, 4, 4], &boxes), array(&[1, 4, 2], &scores)];
    let found = detection::decode(&settings, &outputs, (1, 1)).unwrap();
    let scores: Vec<f32> = found.iter().map(|d| d.score).collect();
    assert_eq!(scores, [0.8, 0.3]);
}

#[test]
fn a_mask_gives_one_box_a_connected_place() {
    let settings = settings(r#"{"output": "mask", "labels": ["text"]}"#);
    #[rustfmt::skip]
    let values = [
        0.9, 0.9, 0.0, 0.0, 0.0,
        0.0, 0.9, 0.0, 0.0, 0.6,
        0.0, 0.0, 0.0, 0.6, 0.0,
    ];
    let found = detection::decode(&settings, &[array(&[1, 1, 3, 5], &values)], (5, 3)).unwrap();
    assert_eq!(found.len(), 3, "corners do not connect: {found:?}");
    let area = found[0].area.unwrap();
    assert_eq!(found[0].label, "text");
    assert_eq!((area.left, area.top), (0.0, 0.0));
    assert!((area.right - 0.4).abs() < 1e-6 && (area.bottom - 2.0 / 3.0).abs() < 1e-6);
}

#[test]
fn a_place_is_one_whichever_way_it_winds() {
    let settings = settings(r#"{"output": "mask"}"#);
    #[rustfmt::skip]
    let values = [
        0.9, 0.0, 0.9, 0.9, 0.9,
        0.9, 0.0, 0.9, 0.0, 0.9,
        0.9, 0.9, 0.9, 0.0, 0.9,
        0.0, 0.0, 0.9, 0.9, 0.9,
    ];
    let found = detection::decode(&settings, &[array(&[1, 1, 4, 5], &values)], (5, 4)).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn classes_are_probabilities_whether_given_as_such_or_as_logits() {
    let settings = settings(r#"{"output": "classes", "labels": ["day", "night"]}"#);
    let (day, night) = (2.0_f32.exp(), 0.0_f32.exp());
    for values in [[2.0, 0.0], [day / (day + night), night / (day + night)]] {
        let found = detection::decode(&settings, &[array(&[1, 2], &values)], (1, 1)).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].label, "day");
        assert!((found[0].score - 0.880_797).abs() < 1e-5);
        assert_eq!(found[0].area, None);
    }
}

#[test]
fn outputs_of_another_shape_are_refused() {
    let shapes: [&[usize]; 4] = [&[1, 6], &[2, 6, 4], &[1, 4, 4], &[4]];
    for shape in shapes {
        let output = array(shape, &vec![0.0; shape.iter().product()]);
        let settings = settings(r#"{"output": "yolo-v8"}"#);
        assert_eq!(
            detection::decode(&settings, &[output], (8, 8)),
            None,
            "{shape:?}"
        );
    }
}

#[test]
fn a_letterboxed_find_lies_where_it_is_in_the_picture() {
    let placement = letterbox((200, 100), (64, 64));
    assert_eq!((placement.left, placement.top), (0, 16));
    assert_eq!((placement.width, placement.height), (64, 32));
    let upright = letterbox((100, 200), (64, 64));
    assert_eq!((upright.left, upright.top), (16, 0));
    assert_eq!((upright.width, upright.height), (32, 64));
    assert_eq!(place(32.0, placement.top, placement.height), 0.5);
    assert_eq!(place(3.0, placement.top, placement.height), 0.0);
}

#[test]
fn a_find_that_reaches_over_the_bars_ends_with_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mask.onnx");
    std::fs::copy(fixture("mask.onnx"), &path).unwrap();
    let write = |text: &str| std::fs::write(path.with_extension("json"), text).unwrap();
    write(r#"{"output": "mask", "input": [32, 32], "labels": ["bright"], "threshold": 0.0}"#);
    let picture = Rgb8::new(64, 32, vec![200; 64 * 32 * 3]).unwrap();
    let found = Detector::open(&path).unwrap().detect(&picture).unwrap();
    assert_eq!(found.len(), 1);
    let area = found[0].area.unwrap();
    assert_eq!(
        (area.left, area.top, area.right, area.bottom),
        (0.0, 0.0, 1.0, 1.0)
    );
}

#[test]
fn a_find_between_the_bars_is_given_in_the_picture() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mask.onnx");
    std::fs::copy(fixture("mask.onnx"), &path).unwrap();
    // onnxruntime scores black 0.43, grey bars 0.03, the row below the upper bar 0.17 and the one
    // above the lower bar over 0.3.
    let settings = r#"{"output": "mask", "input": [32, 32], "threshold": 0.3}"#;
    std::fs::write(path.with_extension("json"), settings).unwrap();
    let picture = Rgb8::new(64, 32, vec![0; 64 * 32 * 3]).unwrap();
    let found = Detector::open(&path).unwrap().detect(&picture).unwrap();
    assert_eq!(found.len(), 1);
    // Rows 9 to 23 of the input, of which the picture has 8 to 23.
    let area = found[0].area.unwrap();
    assert_eq!((area.top, area.bottom), (1.0 / 16.0, 1.0));
    assert_eq!((area.left, area.right), (0.0, 1.0));
}

#[test]
fn settings_errors_name_file_key_value_and_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("yolo.onnx");
    std::fs::copy(fixture("yolo.onnx"), &path).unwrap();
    let cases = [
        (
            r#"{"output": "yolo-v8", "threshold": 1.5}"#,
            "threshold is 1.5, allowed is 0 to 1",
        ),
        (r#"{"output": "yolo-v8", "std": [1, 0, 1]}"#, "std is"),
        (
            r#"{"output": "yolo-v8", "labels": ["cat"], "wanted": ["dog"]}"#,
            "wanted is dog, allowed is one of the labels: cat",
        ),
        (r#"{"output": "yolo-v9"}"#, "yolo-v9"),
        (r#"{"output": "yolo-v8", "treshold": 1}"#, "treshold"),
    ];
    for (text, wanted) in cases {
        std::fs::write(dir.path().join("yolo.json"), text).unwrap();
        let error = Detector::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("yolo.json") && error.contains(wanted),
            "{error}"
        );
    }
    std::fs::remove_file(dir.path().join("yolo.json")).unwrap();
    let error = Detector::open(&path).unwrap_err().to_string();
    assert!(error.contains("described by a JSON file"), "{error}");
}

#[test]
fn the_picture_is_laid_out_as_the_settings_say() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("yolo.onnx");
    std::fs::copy(fixture("yolo.onnx"), &path).unwrap();
    let picture = Rgb8::new(4, 2, [10, 20, 30].repeat(8)).unwrap();
    let bar = f32::from(LETTERBOX_GREY);
    let plane = SIDE * SIDE;
    // The 4 x 2 picture becomes rows 8 to 23 of the 32 x 32 input.
    let cases = [
        (r#""scale": 1"#, [10.0, 20.0, 30.0], [bar; 3]),
        (
            r#""scale": 1, "channels": "bgr""#,
            [30.0, 20.0, 10.0],
            [bar; 3],
        ),
        (
            r#""scale": 1, "fit": "stretch""#,
            [10.0, 20.0, 30.0],
            [10.0, 20.0, 30.0],
        ),
        (
            r#""scale": 0.5, "mean": [1, 2, 3], "std": [2, 4, 8]"#,
            [2.0, 2.0, 1.5],
            [
                (bar / 2.0 - 1.0) / 2.0,
                (bar / 2.0 - 2.0) / 4.0,
                (bar / 2.0 - 3.0) / 8.0,
            ],
        ),
        (
            "\"fit\": \"letterbox\"",
            [10.0, 20.0, 30.0].map(|v: f32| v / 255.0),
            [bar / 255.0; 3],
        ),
    ];
    for (settings, inside, above) in cases {
        let text = format!(r#"{{"output": "yolo-v8", {settings}}}"#);
        std::fs::write(path.with_extension("json"), text).unwrap();
        let (values, _) = Detector::open(&path)
            .unwrap()
            .input_values(&picture)
            .unwrap();
        assert_eq!(values.len(), 3 * plane);
        for channel in 0..3 {
            let at = |row: usize| values[channel * plane + row * SIDE + 5];
            for (row, wanted) in [(7, above), (8, inside), (23, inside), (24, above)] {
                let (got, wanted) = (at(row), wanted[channel]);
                assert!(
                    (got - wanted).abs() < 1e-6,
                    "{settings} {channel} {row}: {got} {wanted}"
                );
            }
        }
    }
}
