//! The commented rule files in `examples/` load without a warning.

use ocelli_reflex::{Inventory, load};

#[test]
fn every_example_loads_without_a_warning() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let inventory = Inventory {
                serial: true,
                ..Inventory::default()
            };
            let loaded = load(&text, &inventory)
                .unwrap_or_else(|rejected| panic!("{}:\n{rejected}", path.display()));
            assert!(
                loaded.warnings.is_empty(),
                "{}: {}",
                path.display(),
                loaded.warnings[0]
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}
