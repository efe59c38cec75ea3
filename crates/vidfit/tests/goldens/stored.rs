//! Folders of runs and queues as the repository has them: as the program left them, but for the folder
//! of the test, which is called `{here}` in them.
//!
//! A run speaks of that folder in `request.json`, `plan.json` and `log.jsonl`, and in the key of its
//! state, the tensor `job` of `state.safetensors`: models and LoRAs are known by their places.

use crate::sandbox::Sandbox;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// Stands for the folder of the test.
const HERE: &str = "{here}";

/// Copies a folder of the program's to one of the repository's.
pub fn pack(sandbox: &Sandbox, from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    rewritten(from, to, sandbox.root.to_str().unwrap(), HERE);
}

/// Copies a folder of the repository's to one for the program.
pub fn unpack(sandbox: &Sandbox, from: &Path, to: &Path) {
    rewritten(from, to, HERE, sandbox.root.to_str().unwrap());
}

fn rewritten(from: &Path, to: &Path, old: &str, new: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let to = to.join(name);
        if path.is_dir() {
            rewritten(&path, &to, old, new);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let bytes = match path.extension().and_then(|it| it.to_str()) {
            Some("json" | "jsonl") => {
                String::from_utf8(bytes).unwrap().replace(old, new).into_bytes()
            }
            Some("safetensors") if name.starts_with("state") => with_key(&bytes, old, new),
            _ => bytes,
        };
        fs::write(to, bytes).unwrap();
    }
}

/// The header of a file of tensors, and what follows it.
pub fn parts(bytes: &[u8]) -> (Map<String, Value>, &[u8]) {
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let (header, data) = rest.split_at(length);
    (serde_json::from_slice(header).unwrap(), data)
}

/// A state with `old` replaced in its key, and the tensors behind it moved.
fn with_key(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let (header, data) = parts(bytes);
    let offset = |info: &Value, end: usize| info["data_offsets"][end].as_u64().unwrap() as usize;
    let mut tensors: Vec<(String, Value)> = header.into_iter().collect();
    tensors.sort_by_key(|(_, info)| (offset(info, 0), offset(info, 1)));
    let (mut header, mut moved) = (Map::new(), Vec::new());
    for (name, mut info) in tensors {
        let start = moved.len();
        let values = &data[offset(&info, 0)..offset(&info, 1)];
        if name == "job" {
            let key = String::from_utf8(values.to_vec()).unwrap().replace(old, new);
            info["shape"] = json!([key.len()]);
            moved.extend_from_slice(key.as_bytes());
        } else {
            moved.extend_from_slice(values);
        }
        info["data_offsets"] = json!([start, moved.len()]);
        header.insert(name, info);
    }
    let mut header = Value::Object(header).to_string();
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &moved].concat()
}

#[test]
fn a_key_is_replaced_and_nothing_else() {
    let header = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
        "job":{"dtype":"U8","shape":[8],"data_offsets":[2,10]},
        "z":{"dtype":"U8","shape":[1],"data_offsets":[10,11]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let state = [&length[..], header.as_bytes(), b"xy{here}/mz"].concat();
    let there = with_key(&state, HERE, "/tmp/longer");
    assert!(there.ends_with(b"xy/tmp/longer/mz"));
    assert!(with_key(&there, "/tmp/longer", HERE).ends_with(b"xy{here}/mz"));
}
