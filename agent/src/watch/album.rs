//! Pictures and what was said of them, kept in a folder.

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageError};
use ocelli_runtime::image::Rgb8;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Quality of saved JPEG pictures, 1 to 100.
const JPEG_QUALITY: u8 = 90;

/// How pictures are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PictureType {
    /// Small.
    #[default]
    Jpg,
    /// Exactly the pixels the model saw.
    Png,
}

impl PictureType {
    fn extension(self) -> &'static str {
        match self {
            PictureType::Jpg => "jpg",
            PictureType::Png => "png",
        }
    }
}

/// A folder of pictures, each with a `.json` of the same name.
#[derive(Debug)]
pub struct Album {
    dir: PathBuf,
    kind: PictureType,
}

impl Album {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made.
    pub fn open(dir: &Path, kind: PictureType) -> io::Result<Album> {
        std::fs::create_dir_all(dir)?;
        Ok(Album {
            dir: dir.to_path_buf(),
            kind,
        })
    }

    /// Where the picture of a moment and event belongs.
    pub fn path(&self, taken: SystemTime, event: u64) -> PathBuf {
        let time = humantime::format_rfc3339_millis(taken).to_string();
        let time = time.replace([':', '-'], "");
        self.dir
            .join(format!("{time}-{event}.{}", self.kind.extension()))
    }

    /// Saves picture and words; each file is either whole or not there.
    ///
    /// # Errors
    ///
    /// A folder that is gone, a full disk.
    pub fn save(&self, path: &Path, picture: &Rgb8, words: &str) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode(picture, self.kind, &mut bytes).map_err(io::Error::other)?;
        self.write(path, &bytes)?;
        self.write(
            &path.with_extension("json"),
            format!("{words}\n").as_bytes(),
        )
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    }
}

fn encode(picture: &Rgb8, kind: PictureType, out: &mut Vec<u8>) -> Result<(), ImageError> {
    match kind {
        PictureType::Jpg => encode_jpeg(picture, JPEG_QUALITY, out),
        PictureType::Png => write(picture, PngEncoder::new(out)),
    }
}

/// Adds a picture to `out` as a JPEG file; `quality` is 1 to 100.
///
/// # Errors
///
/// Sides over what JPEG allows.
pub fn encode_jpeg(picture: &Rgb8, quality: u8, out: &mut Vec<u8>) -> Result<(), ImageError> {
    write(picture, JpegEncoder::new_with_quality(out, quality))
}

fn write(picture: &Rgb8, encoder: impl ImageEncoder) -> Result<(), ImageError> {
    // Sides of a picture are at most 65 535.
    let (width, height) = (picture.width() as u32, picture.height() as u32);
    encoder.write_image(picture.pixels(), width, height, ExtendedColorType::Rgb8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_saved_png_has_the_very_pixels_and_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let album = Album::open(&dir.path().join("a/b"), PictureType::Png).unwrap();
        let pixels: Vec<u8> = (0..5 * 3 * 3).map(|i| (i * 5) as u8).collect();
        let picture = Rgb8::new(5, 3, pixels).unwrap();
        let path = album.path(UNIX_EPOCH + Duration::from_millis(1_234), 7);
        assert_eq!(path.file_name().unwrap(), "19700101T000001.234Z-7.png");
        album.save(&path, &picture, "{\"text\":\"a\"}").unwrap();
        assert_eq!(Rgb8::open(&path).unwrap(), picture);
        let words = std::fs::read_to_string(path.with_extension("json")).unwrap();
        assert_eq!(words, "{\"text\":\"a\"}\n");
        let files = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 2, "no temporary file is left");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Album::open(&file.path().join("x"), PictureType::Jpg).is_err());
    }
}
