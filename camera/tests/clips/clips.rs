//! Rendered clips with known entries, and how well a detector does on them.

pub(crate) mod camera;
pub(crate) mod clip;
pub(crate) mod random;
pub(crate) mod rivals;
pub(crate) mod scene;
pub(crate) mod score;
