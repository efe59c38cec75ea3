//! Checkpoints without weights: files of the right size and header, whose data are holes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use vidfit_engine::safetensors::StoredDtype;

/// Writes a safetensors file of these tensors, all zero, that takes no room for them.
pub fn write_zeros(path: &Path, tensors: &[(String, StoredDtype, Vec<usize>)]) {
    let mut end = 0;
    let mut entries = serde_json::Map::new();
    for (name, dtype, shape) in tensors {
        let begin = end;
        end += shape.iter().product::<usize>() as u64 * dtype.element_bytes();
        let entry = serde_json::json!({
            "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, end]
        });
        assert!(entries.insert(name.clone(), entry).is_none(), "{name} is there twice");
    }
    let mut header = serde_json::Value::Object(entries).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    write_with_hole(path, &header, end);
}

/// Length, header, and a hole of `data_bytes`.
fn write_with_hole(path: &Path, header: &[u8], data_bytes: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header).unwrap();
    file.set_len(8 + header.len() as u64 + data_bytes).unwrap();
}

/// Copies a checkpoint, but for the elements of its weights.
pub fn copy_without_weights(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_without_weights(&path, &target);
        } else if path.extension().is_some_and(|extension| extension == "safetensors") {
            let mut file = File::open(&path).unwrap();
            let mut length = [0; 8];
            file.read_exact(&mut length).unwrap();
            let mut header = vec![0; u64::from_le_bytes(length) as usize];
            file.read_exact(&mut header).unwrap();
            let bytes = file.metadata().unwrap().len();
            write_with_hole(&target, &header, bytes - 8 - header.len() as u64);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Whether files in `dir` may have holes of any size. Says so if not.
pub fn supports_holes(dir: &Path) -> bool {
    let path = dir.join("hole");
    let bytes = 1 << 40;
    let supported = File::create(&path).and_then(|file| file.set_len(bytes)).is_ok()
        && occupied_bytes(&path).is_none_or(|occupied| occupied < bytes / 1000);
    let _ = fs::remove_file(&path);
    if !supported {
        println!("skipped: the file system of {} has no sparse files", dir.display());
    }
    supported
}

/// The bytes that a file takes on the disk, where the system says.
#[cfg(unix)]
pub fn occupied_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(fs::metadata(path).ok()?.blocks() * 512)
}

/// The bytes that a file takes on the disk, where the system says.
#[cfg(not(unix))]
pub fn occupied_bytes(_: &Path) -> Option<u64> {
    None
}
