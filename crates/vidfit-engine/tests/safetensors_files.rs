//! Whole files and folders of them: written and read back, sharded, huge.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vidfit_engine::safetensors::{
    SafetensorsError, SafetensorsFile, ShardedTensors, StoredDtype, TensorToWrite,
    write_safetensors,
};

fn write_bytes(path: &Path, names: &[&str]) {
    let tensors: Vec<TensorToWrite<'_>> = names
        .iter()
        .map(|name| (*name, StoredDtype::U8, [1].as_slice(), &name.as_bytes()[..1]))
        .collect();
    write_safetensors(path, &tensors).unwrap();
}

fn write_index(dir: &Path, name: &str, entries: &[(&str, &str)]) {
    let entries: Vec<String> =
        entries.iter().map(|(tensor, file)| format!("{tensor:?}: {file:?}")).collect();
    let text =
        format!(r#"{{"metadata": {{"total_size": 1}}, "weight_map": {{{}}}}}"#, entries.join(", "));
    fs::write(dir.join(name), text).unwrap();
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    let floats: Vec<u8> = [1.5f32, -2.0, 0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let ids: Vec<u8> = [1i64, 2].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors: [TensorToWrite<'_>; 4] = [
        ("flag", StoredDtype::Bool, &[1], &[1]),
        ("floats", StoredDtype::F32, &[3, 1], &floats),
        ("ids", StoredDtype::I64, &[1, 2], &ids),
        ("none", StoredDtype::F16, &[0, 7], &[]),
    ];
    write_safetensors(&path, &tensors).unwrap();
    write_safetensors(&path, &tensors).unwrap();

    let file = SafetensorsFile::open(&path).unwrap();
    assert_eq!(file.path(), path);
    assert_eq!(file.file_bytes(), fs::metadata(&path).unwrap().len());
    assert_eq!(file.tensors().len(), 4);
    for (name, dtype, shape, bytes) in tensors {
        let info = file.info(name).unwrap();
        assert_eq!((info.dtype, info.shape.as_slice()), (dtype, shape));
        assert_eq!(file.bytes(name).unwrap(), bytes);
        assert_eq!(info.range.start % dtype.element_bytes(), 0, "{name} is not aligned");
    }
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "a temporary file is left");

    // A handle outlives the file's value, and the file itself.
    let handle = file.mapped("floats").unwrap();
    let second = handle.clone();
    drop((file, handle));
    fs::remove_file(&path).unwrap();
    assert_eq!(second.as_slice(), floats);
}

#[test]
fn what_cannot_be_written_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.safetensors");
    write_bytes(&path, &["a"]);
    let before = fs::read(&path).unwrap();
    let bad: [&[TensorToWrite<'_>]; 4] = [
        &[("x", StoredDtype::F32, &[2], &[0; 4])],
        &[("x", StoredDtype::F32, &[usize::MAX, 2], &[0; 4])],
        &[("x", StoredDtype::U8, &[1], &[0]), ("x", StoredDtype::U8, &[1], &[0])],
        &[("__metadata__", StoredDtype::U8, &[1], &[0])],
    ];
    for tensors in bad {
        let error = write_safetensors(&path, tensors).unwrap_err();
        assert!(matches!(error, SafetensorsError::CannotWrite { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    let nowhere = folder.path().join("none/out.safetensors");
    let error = write_safetensors(&nowhere, &[]).unwrap_err().to_string();
    assert!(error.contains("none/out.safetensors"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

proptest! {
    #[test]
    fn any_tensors_round_trip(
        tensors in proptest::collection::btree_map(
            "\\PC{0,12}",
            (0..StoredDtype::ALL.len(), proptest::collection::vec(0usize..4, 0..4), any::<u8>()),
            0..8,
        )
    ) {
        let owned: Vec<(String, StoredDtype, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, (dtype, shape, fill))| {
                let dtype = StoredDtype::ALL[dtype];
                let elements: usize = shape.iter().product();
                (name, dtype, shape, vec![fill; elements * dtype.element_bytes() as usize])
            })
            .collect();
        let borrowed: Vec<TensorToWrite<'_>> = owned
            .iter()
            .map(|(name, dtype, shape, bytes)| (name.as_str(), *dtype, &shape[..], &bytes[..]))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write_safetensors(&path, &borrowed).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        prop_assert_eq!(file.tensors().len(), owned.len());
        for (name, dtype, shape, bytes) in &owned {
            let info = file.info(name).unwrap();
            prop_assert_eq!(info.dtype, *dtype);
            prop_assert_eq!(&info.shape, shape);
            prop_assert_eq!(file.bytes(name).unwrap(), &bytes[..]);
        }
    }
}

#[test]
fn every_dtype_knows_its_name() {
    for dtype in StoredDtype::ALL {
        assert_eq!(StoredDtype::from_name(dtype.name()), Some(dtype));
    }
}

#[test]
fn shards() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_bytes(&dir.join("model-1.safetensors"), &["a", "b", "stray"]);
    write_bytes(&dir.join("model-2.safetensors"), &["c", "b"]);
    write_index(
        dir,
        INDEX,
        &[("a", "model-1.safetensors"), ("b", "model-1.safetensors"), ("c", "model-2.safetensors")],
    );
    let tensors = ShardedTensors::open(dir, "model").unwrap();
    let mut names: Vec<&str> = tensors.tensors().map(|(_, t)| t.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(tensors.len(), 3);
    assert_eq!(tensors.bytes("c").unwrap(), b"c");
    assert_eq!(tensors.mapped("a").unwrap().as_slice(), b"a");
    assert_eq!(tensors.info("b").unwrap().shape, [1]);
    assert!(tensors.file("c").unwrap().path().ends_with("model-2.safetensors"));
    let extra: Vec<String> = tensors
        .extra()
        .iter()
        .map(|e| format!("{} {}", e.name, e.file.file_name().unwrap().to_str().unwrap()))
        .collect();
    assert_eq!(extra, ["stray model-1.safetensors", "b model-2.safetensors"]);
    assert!(tensors.bytes("stray").is_err());
    assert_eq!(tensors.files().len(), 2);
}

#[test]
fn shards_that_are_missing_or_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("models--o--n/snapshots/1/text_encoder");
    fs::create_dir_all(&dir).unwrap();

    let message = ShardedTensors::open(&dir, "model").unwrap_err().to_string();
    for part in [INDEX, "neither", " model.safetensors ", "vidfit models pull o/n"] {
        assert!(message.contains(part), "{part}: {message}");
    }

    write_bytes(&dir.join("model-1.safetensors"), &["a"]);
    write_index(&dir, INDEX, &[("a", "model-1.safetensors"), ("b", "model-2.safetensors")]);
    let error = ShardedTensors::open(&dir, "model").unwrap_err();
    assert!(matches!(error, SafetensorsError::MissingShard { .. }));
    let message = error.to_string();
    let path = dir.join("model-2.safetensors");
    for part in [path.to_str().unwrap(), "`vidfit models pull o/n`", INDEX] {
        assert!(message.contains(part), "{part}: {message}");
    }

    write_index(&dir, INDEX, &[("a", "model-1.safetensors"), ("b", "model-1.safetensors")]);
    let message = ShardedTensors::open(&dir, "model").unwrap_err().to_string();
    assert!(message.contains("`b` is in model-1.safetensors, but it is not"), "{message}");
}

#[test]
fn indices_that_lie() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("component");
    fs::create_dir(&dir).unwrap();
    write_bytes(&folder.path().join("x.safetensors"), &["a"]);
    let absolute = folder.path().join("x.safetensors");
    for shard in
        ["../x.safetensors", absolute.to_str().unwrap(), "..", ".", "", "a\\x", "c:x", "x\0"]
    {
        write_index(&dir, INDEX, &[("a", shard)]);
        let error = ShardedTensors::open(&dir, "model").unwrap_err();
        assert!(matches!(error, SafetensorsError::InvalidIndex { .. }), "{shard}: {error}");
    }
    for text in [
        "",
        "[]",
        "{}",
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": {"a": 1}}"#,
        r#"{"weight_map": {"a": "x", "a": "y"}}"#,
    ] {
        fs::write(dir.join(INDEX), text).unwrap();
        let error = ShardedTensors::open(&dir, "model").unwrap_err();
        assert!(matches!(error, SafetensorsError::InvalidIndex { .. }), "{text}: {error}");
    }
}

#[test]
fn a_single_file_and_its_variants() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    write_bytes(&dir.join("vae.bf16.safetensors"), &["bf16"]);
    assert!(ShardedTensors::open(dir, "vae").unwrap().contains("bf16"));
    write_bytes(&dir.join("part.safetensors"), &["part"]);
    write_index(dir, "vae.safetensors.index.fp16.json", &[("part", "part.safetensors")]);
    assert!(ShardedTensors::open(dir, "vae").unwrap().contains("part"));
    write_bytes(&dir.join("vae.safetensors"), &["plain"]);
    let plain = ShardedTensors::open(dir, "vae").unwrap();
    assert!(plain.contains("plain") && plain.len() == 1);
    assert_eq!(plain.file_bytes(), fs::metadata(dir.join("vae.safetensors")).unwrap().len());
}

#[test]
fn a_file_of_twenty_gigabytes_opens_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big.safetensors");
    let half = 10u64 << 30;
    let header = format!(
        r#"{{"a":{{"dtype":"BF16","shape":[{n},2],"data_offsets":[0,{half}]}},"b":{{"dtype":"BF16","shape":[{n},2],"data_offsets":[{half},{end}]}}}}"#,
        n = half / 4,
        end = 2 * half,
    );
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + 2 * half).unwrap();
    drop(file);

    let start = Instant::now();
    let file = SafetensorsFile::open(&path).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(file.bytes("b").unwrap().len() as u64, half);
    assert_eq!(file.bytes("b").unwrap()[half as usize - 1], 0);
}
