//! Whether an output can be written, asked before any heavy work.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{MediaError, OutputKind};

/// Checks that the output `path` can be written and that `estimated_bytes` (see
/// [`estimate_bytes`](crate::estimate_bytes)) have room beside it. Changes nothing on the disk.
///
/// # Errors
///
/// What stands in the way, and what to do about it: an unknown extension, a build without H.264,
/// a folder that is missing, a file or another's files in the way, no permission, no room.
pub fn check_target(path: &Path, estimated_bytes: u64) -> Result<(), MediaError> {
    let target = Target::resolve(path)?;
    check_room(path, &target.folder, estimated_bytes)
}

/// As [`check_target`], for a file of any other kind that is written beside the video.
///
/// # Errors
///
/// As [`check_target`], but for the extension.
pub fn check_file(path: &Path, bytes: u64) -> Result<(), MediaError> {
    if let Ok(meta) = fs::metadata(path) {
        check_is_file(path, &meta)?;
    }
    check_room(path, &folder_of(path, path)?, bytes)
}

/// Only a file is replaced by a file: a device must not be.
fn check_is_file(path: &Path, meta: &fs::Metadata) -> Result<(), MediaError> {
    match (meta.is_dir(), meta.is_file()) {
        (true, _) => Err(MediaError::IsAFolder { path: path.to_path_buf() }),
        (false, true) => Ok(()),
        (false, false) => Err(MediaError::NotAFile { path: path.to_path_buf() }),
    }
}

fn check_room(path: &Path, folder: &Path, bytes: u64) -> Result<(), MediaError> {
    // Asking for a file's permissions says less than making one: think of read-only disks.
    tempfile::tempfile_in(folder)
        .map_err(|source| MediaError::NotWritable { folder: folder.to_path_buf(), source })?;
    match fs4::statvfs(folder) {
        // Some network disks do not say how large they are.
        Ok(stats) if stats.total_space() > 0 && stats.available_space() < bytes => {
            Err(MediaError::NoRoom {
                path: path.to_path_buf(),
                needed_bytes: bytes,
                free_bytes: stats.available_space(),
            })
        }
        _ => Ok(()),
    }
}

/// The existing folder that holds `path`, which the user named `named`.
fn folder_of(named: &Path, path: &Path) -> Result<PathBuf, MediaError> {
    let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
        return Err(MediaError::NoName { path: named.to_path_buf() });
    };
    let folder =
        if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() };
    match fs::metadata(&folder) {
        Ok(meta) if meta.is_dir() => Ok(folder),
        Ok(_) => Err(MediaError::NotAFolder { path: named.to_path_buf(), folder }),
        // A file further up the path reports itself as "not a directory".
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(MediaError::NotWritable { folder, source })
        }
        Err(_) => Err(MediaError::NoFolder { path: named.to_path_buf(), folder }),
    }
}

/// Where an output goes: what its name stands for once links are followed.
#[derive(Debug)]
pub(crate) struct Target {
    /// The output as its user named it, for messages.
    pub(crate) named: PathBuf,
    /// The file or folder to put in place.
    pub(crate) path: PathBuf,
    /// The existing folder that holds it.
    pub(crate) folder: PathBuf,
    pub(crate) kind: OutputKind,
}

impl Target {
    /// Finds the place of the output `named` and checks that nothing stands there that we would
    /// not replace.
    pub(crate) fn resolve(named: &Path) -> Result<Self, MediaError> {
        let kind = OutputKind::from_path(named)?;
        if kind == OutputKind::Mp4 && cfg!(not(feature = "h264")) {
            return Err(MediaError::H264Off { path: named.to_path_buf() });
        }
        // Replacing what a link points to, not the link, is what opening it would have done.
        // Without the final slash, which would hide a file of that name.
        let plain: PathBuf = named.components().collect();
        let path = fs::canonicalize(&plain).unwrap_or(plain);
        let folder = folder_of(named, &path)?;
        let target = Self { named: named.to_path_buf(), path, folder, kind };
        target.check_replaceable()?;
        Ok(target)
    }

    /// Checks that what is at the target now, if anything, may be replaced by the new output.
    pub(crate) fn check_replaceable(&self) -> Result<(), MediaError> {
        let Ok(meta) = fs::metadata(&self.path) else {
            return Ok(());
        };
        if self.kind != OutputKind::PngFolder {
            return check_is_file(&self.named, &meta);
        }
        if !meta.is_dir() {
            return Err(MediaError::NotAFolder {
                path: self.named.clone(),
                folder: self.path.clone(),
            });
        }
        let reading = |source| MediaError::io("reading", &self.named, source);
        for entry in fs::read_dir(&self.path).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let ours = is_frame_name(&entry.file_name());
            if !ours || entry.file_type().map_err(reading)?.is_dir() {
                let found = entry.file_name().to_string_lossy().into_owned();
                return Err(MediaError::ForeignFiles { path: self.named.clone(), found });
            }
        }
        Ok(())
    }

    /// The start of the names of temporary siblings: hidden, and telling what they belong to.
    pub(crate) fn sibling_prefix(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        // Names have a limit of 255 bytes; a sibling's must not be the longer one.
        format!(".{}.", name.chars().take(32).collect::<String>())
    }
}

/// The name of a frame in a folder of PNGs, counted from 0.
pub(crate) fn frame_name(frame: u64) -> String {
    format!("frame_{frame:05}.png")
}

fn is_frame_name(name: &OsStr) -> bool {
    let digits = name
        .to_str()
        .and_then(|name| name.strip_prefix("frame_"))
        .and_then(|name| name.strip_suffix(".png"));
    digits.is_some_and(|d| d.len() >= 5 && d.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_names_are_recognised() {
        assert!(is_frame_name(OsStr::new(&frame_name(0))));
        assert!(is_frame_name(OsStr::new(&frame_name(1_234_567))));
        for name in ["frame_1.png", "frame_00000.jpg", "frame_0000x.png", "notes.txt", ".DS_Store"]
        {
            assert!(!is_frame_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn good_targets_pass_and_leave_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("old.gif"), b"old").unwrap();
        let forms: &[&str] = if cfg!(feature = "h264") {
            &["a.mp4", "a.gif", "frames", "frames/", "old.gif"]
        } else {
            &["a.gif", "frames", "frames/", "old.gif"]
        };
        for name in forms {
            check_target(&folder.path().join(name), 1000).unwrap();
        }
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["old.gif"]);
        check_target(Path::new("in-the-working-folder.gif"), 0).unwrap();
    }

    #[test]
    fn a_missing_folder_says_how_to_make_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_target(&folder.path().join("no/such/a.gif"), 0).unwrap_err();
        assert!(matches!(error, MediaError::NoFolder { .. }));
        assert!(error.to_string().contains("mkdir -p"), "{error}");
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), b"").unwrap();
        fs::create_dir(path("dir.gif")).unwrap();
        fs::create_dir(path("mine")).unwrap();
        fs::write(path("mine/frame_00000.png"), b"").unwrap();
        check_target(&path("mine"), 0).unwrap();
        fs::write(path("mine/thesis.txt"), b"").unwrap();

        let error = |name: &str| check_target(&path(name), 0).unwrap_err();
        assert!(matches!(error("file/a.gif"), MediaError::NotAFolder { .. }));
        assert!(matches!(error("file"), MediaError::NotAFolder { .. }));
        assert!(matches!(error("dir.gif"), MediaError::IsAFolder { .. }));
        assert!(
            matches!(error("mine"), MediaError::ForeignFiles { found, .. } if found == "thesis.txt")
        );
        assert!(matches!(error("a.avi"), MediaError::UnknownExtension { .. }));
        assert!(matches!(check_target(Path::new("/"), 0), Err(MediaError::NoName { .. })));
    }

    #[test]
    fn no_room_is_said_with_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_target(&folder.path().join("a.gif"), u64::MAX).unwrap_err();
        assert!(matches!(error, MediaError::NoRoom { needed_bytes: u64::MAX, .. }), "{error}");
        assert!(error.to_string().contains("GB free"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_folder_is_refused() {
        // Permission bits do not bind root; /proc takes new files from nobody.
        let folder = Path::new("/proc");
        if !folder.is_dir() {
            println!("skipped: there is no /proc here to stand for a read-only folder");
            return;
        }
        let error = check_target(&folder.join("a.gif"), 0).unwrap_err();
        assert!(matches!(error, MediaError::NotWritable { .. }), "{error}");
    }

    #[cfg(feature = "h264")]
    #[test]
    fn mp4_is_a_known_form() {
        let folder = tempfile::tempdir().unwrap();
        check_target(&folder.path().join("a.mp4"), 0).unwrap();
    }

    #[cfg(not(feature = "h264"))]
    #[test]
    fn mp4_without_its_encoder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = check_target(&folder.path().join("a.mp4"), 0).unwrap_err();
        assert!(matches!(error, MediaError::H264Off { .. }));
    }
}
