//! Folders of PNGs, without loss.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use ::png::{BitDepth, ColorType, Encoder, EncodingError};
use tempfile::{Builder, TempDir};

use crate::atomic::{rename, sync_folder};
use crate::target::{Target, frame_name};
use crate::{MediaError, VideoSettings};

/// Writes one folder. It grows inside a hidden sibling folder and is moved out at the end.
pub(crate) struct PngFolder {
    sibling: TempDir,
    growing: PathBuf,
    target: Target,
    width: u32,
    height: u32,
    frames: u64,
    bytes: u64,
}

impl PngFolder {
    pub(crate) fn create(target: Target, settings: &VideoSettings) -> Result<Self, MediaError> {
        let creating = |source| MediaError::io("creating", &target.named, source);
        let sibling = Builder::new()
            .prefix(&target.sibling_prefix())
            .suffix(".part")
            .tempdir_in(&target.folder)
            .map_err(creating)?;
        let growing = sibling.path().join("new");
        fs::create_dir(&growing).map_err(creating)?;
        let (width, height) = (settings.width, settings.height);
        Ok(Self { sibling, growing, target, width, height, frames: 0, bytes: 0 })
    }

    pub(crate) fn write_frame(&mut self, rgb: &[u8]) -> Result<(), MediaError> {
        let path = self.growing.join(frame_name(self.frames));
        self.bytes += write_png_file(&path, self.width, self.height, rgb)
            .map_err(|source| MediaError::io("writing", &self.target.named, source))?;
        self.frames += 1;
        Ok(())
    }

    /// Puts the folder in place, in exchange for an older one; returns the size of its files in
    /// bytes.
    pub(crate) fn finish(self) -> Result<u64, MediaError> {
        let target = &self.target;
        // Whatever has come into the old folder since we began is not ours to remove.
        target.check_replaceable()?;
        sync_folder(&self.growing);
        let retired = self.sibling.path().join("old");
        let had_old = target.path.exists();
        if had_old {
            rename(&target.path, &retired, &target.named)?;
        }
        if let Err(error) = rename(&self.growing, &target.path, &target.named) {
            if had_old && let Err(stuck) = rename(&retired, &target.path, &retired) {
                // The older frames are in the sibling now: they must outlive us, and be named.
                let _ = self.sibling.keep();
                return Err(stuck);
            }
            return Err(error);
        }
        sync_folder(&target.folder);
        Ok(self.bytes)
    }
}

fn write_png_file(path: &Path, width: u32, height: u32, rgb: &[u8]) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create_new(path)?);
    write_png(&mut file, width, height, rgb)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

fn write_png(out: impl Write, width: u32, height: u32, rgb: &[u8]) -> io::Result<()> {
    let into_io = |error| match error {
        EncodingError::IoError(error) => error,
        other => io::Error::other(other),
    };
    let mut encoder = Encoder::new(out, width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(into_io)?;
    writer.write_image_data(rgb).map_err(into_io)?;
    writer.finish().map_err(into_io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_png(full, 2, 2, &[0; 12]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
