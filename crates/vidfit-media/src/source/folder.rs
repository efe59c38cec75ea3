//! A folder of pictures, one a frame.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Facts, Wanted};
use crate::InputError;
use crate::limits::MAX_FRAMES;
use crate::picture::{picture_size, read_picture};

/// The pictures of a folder in the order of their names, numbers by their value.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    frames: Vec<PathBuf>,
}

impl Folder {
    /// Looks at the header of each picture. Other files, hidden ones and folders are left alone.
    pub(super) fn open(path: &Path) -> Result<(Self, Facts), InputError> {
        let frames = pictures_of(path)?;
        let Some(first) = frames.first() else {
            return Err(InputError::NoPictures { path: path.to_path_buf() });
        };
        let (width, height) = picture_size(first)?;
        for frame in &frames[1..] {
            let (odd_width, odd_height) = picture_size(frame)?;
            if (odd_width, odd_height) != (width, height) {
                return Err(InputError::OddOne {
                    path: path.to_path_buf(),
                    first: file_name(first),
                    width,
                    height,
                    odd: file_name(frame),
                    odd_width,
                    odd_height,
                });
            }
        }
        let facts = Facts { width, height, frames: frames.len(), times: None };
        Ok((Self { path: path.to_path_buf(), frames }, facts))
    }

    pub(super) fn read(
        &self,
        indices: &[usize],
        wanted: &mut Wanted<'_>,
    ) -> Result<(), InputError> {
        for &index in indices {
            wanted.go_on()?;
            let Some(frame) = self.frames.get(index) else {
                let (path, frames) = (self.path.clone(), self.frames.len());
                return Err(InputError::NoSuchFrame { path, index, frames });
            };
            wanted.take(read_picture(frame)?);
        }
        Ok(())
    }
}

/// The files that their names call pictures; what is in them decides when they are read.
fn pictures_of(folder: &Path) -> Result<Vec<PathBuf>, InputError> {
    let reading = |source| InputError::io("reading", folder, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(reading)? {
        let path = entry.map_err(reading)?.path();
        let is_hidden = file_name(&path).starts_with('.');
        let is_picture = path.extension().is_some_and(|extension| {
            ["png", "jpg", "jpeg", "webp"].iter().any(|known| extension.eq_ignore_ascii_case(known))
        });
        if is_hidden || !is_picture || path.is_dir() {
            continue;
        }
        if found.len() == MAX_FRAMES {
            return Err(InputError::TooManyFrames { path: folder.to_path_buf() });
        }
        found.push(path);
    }
    found.sort_by_cached_key(|path| NaturalName::of(&file_name(path)));
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A name whose numbers count by their value: `2.png` comes before `10.png`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NaturalName {
    parts: Vec<Part>,
    /// Tells `1.png` from `01.png`.
    name: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Its digits without leading zeros; the longer number is the larger.
    Number(usize, String),
    Letter(char),
}

impl NaturalName {
    fn of(name: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = name.chars().peekable();
        while let Some(letter) = rest.next() {
            if !letter.is_ascii_digit() {
                parts.push(Part::Letter(letter));
                continue;
            }
            let mut digits = String::from(letter);
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let digits = digits.trim_start_matches('0').to_string();
            parts.push(Part::Number(digits.len(), digits));
        }
        Self { parts, name: name.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_by_their_value() {
        let mut names = ["f10.png", "f2.png", "f02.png", "f1.png", "e9.png", "f1b.png", "f0.png"];
        names.sort_by_key(|name| NaturalName::of(name));
        assert_eq!(
            names,
            ["e9.png", "f0.png", "f1.png", "f1b.png", "f02.png", "f2.png", "f10.png"]
        );
    }
}
