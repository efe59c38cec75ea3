//! Headers that lie, are damaged or are random: each is refused by name and none panics.

// Clippy allows it in tests, but not in what they call.
#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;
use vidfit_engine::safetensors::{HeaderFault, SafetensorsError, SafetensorsFile, StoredDtype};

fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

fn open(bytes: &[u8]) -> Result<SafetensorsFile, SafetensorsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    SafetensorsFile::open(&path)
}

fn fault_of(bytes: &[u8]) -> HeaderFault {
    match open(bytes) {
        Err(SafetensorsError::Invalid { path, fault, .. }) => {
            assert!(path.ends_with("x.safetensors"));
            fault
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn tensor(dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

#[test]
fn too_short_or_too_long() {
    assert_eq!(fault_of(b""), HeaderFault::TooShort { file_bytes: 0 });
    assert_eq!(fault_of(b"1234567"), HeaderFault::TooShort { file_bytes: 7 });
    let beyond = HeaderFault::HeaderBeyondFile { header_bytes: 3, file_bytes: 10 };
    assert_eq!(fault_of(&[3, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']), beyond);
    for length in [100_000_001, u64::MAX, 1 << 63] {
        let mut file = length.to_le_bytes().to_vec();
        file.extend(b"{}");
        assert_eq!(fault_of(&file), HeaderFault::HeaderTooLong { header_bytes: length });
    }
}

#[test]
fn not_text_or_not_json() {
    let mut file = file_of("{\"é\":1}", b"");
    file[10] = 0xff;
    assert_eq!(fault_of(&file), HeaderFault::NotUtf8);
    let good = tensor("U8", "[1]", 0, 1);
    for header in [
        "",
        "[]",
        "null",
        "{",
        "{}}",
        "{} x",
        " {}",
        r#"{"a":1}"#,
        r#"{"a":{}}"#,
        r#"{"a":{"dtype":"U8","shape":[1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}"#,
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#,
        r#"{"a":{"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,1]}}"#,
        r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#,
        r#"{"__metadata__":{"a":1}}"#,
        r#"{"__metadata__":{"a":"b","a":"c"}}"#,
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        &format!(r#"{{"a":{good},"a":{good}}}"#),
        &"[".repeat(100_000),
        &format!(r#"{{"a":{}"#, r#"{"a":"#.repeat(100_000)),
    ] {
        let fault = fault_of(&file_of(header, b"x"));
        assert!(matches!(fault, HeaderFault::NotJson(_)), "{header:.80}: {fault}");
    }
}

#[test]
fn duplicate_names_are_named() {
    let good = tensor("U8", "[1]", 0, 1);
    let fault = fault_of(&file_of(&format!(r#"{{"ab":{good},"\u0061b":{good}}}"#), b"x"));
    assert!(fault.to_string().contains("`ab` stands twice"), "{fault}");
}

#[test]
fn tensors_that_contradict_themselves() {
    let one = |dtype: &str, shape: &str, begin: u64, end: u64| {
        fault_of(&file_of(&format!(r#"{{"t":{}}}"#, tensor(dtype, shape, begin, end)), &[0; 8]))
    };
    let name = || "t".to_owned();
    for dtype in ["f32", "F31", "", "F4", "🦀"] {
        let expected = HeaderFault::UnknownDtype { tensor: name(), dtype: dtype.to_owned() };
        assert_eq!(one(dtype, "[2]", 0, 8), expected);
    }
    let max = u64::MAX;
    for shape in [
        format!("[{max},{max}]"),
        format!("[{max}]"),
        format!("[{max},2,0]"),
        format!("[0,{max},2]"),
        "[4294967296,4294967296]".to_owned(),
        format!("[{}]", ["65536"; 64].join(",")),
    ] {
        let fault = one("F32", &shape, 0, 8);
        assert!(matches!(fault, HeaderFault::ImpossibleShape { .. }), "{shape}: {fault}");
    }
    let backward = HeaderFault::BackwardRange { tensor: name(), begin: 8, end: 0 };
    assert_eq!(one("F32", "[2]", 8, 0), backward);
    let wrong =
        |needed_bytes, bytes| HeaderFault::WrongLength { tensor: name(), needed_bytes, bytes };
    assert_eq!(one("F32", "[3]", 0, 8), wrong(12, 8));
    assert_eq!(one("F32", "[]", 0, 8), wrong(4, 8));
    assert_eq!(one("F32", "[0]", 0, 8), wrong(0, 8));
    assert_eq!(one("BOOL", "[2,2]", 0, 8), wrong(4, 8));
    let beyond = HeaderFault::BeyondFile { tensor: name(), end: 12, data_bytes: 8 };
    assert_eq!(one("F32", "[3]", 0, 12), beyond);
    let beyond = HeaderFault::BeyondFile { tensor: name(), end: max, data_bytes: 8 };
    assert_eq!(one("F32", "[1]", max - 4, max), beyond);
}

#[test]
fn tensors_that_contradict_each_other() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        let part = |(begin, end)| tensor("U8", &format!("[{}]", end - begin), begin, end);
        fault_of(&file_of(&format!(r#"{{"a":{},"b":{}}}"#, part(a), part(b)), &[0; 8]))
    };
    let overlap = |first: &str, second: &str| HeaderFault::Overlap {
        first: first.to_owned(),
        second: second.to_owned(),
    };
    assert_eq!(two((0, 5), (4, 8)), overlap("a", "b"));
    assert_eq!(two((4, 8), (0, 5)), overlap("b", "a"));
    assert_eq!(two((0, 8), (0, 8)), overlap("a", "b"));
    assert_eq!(two((0, 8), (2, 3)), overlap("a", "b"));
    assert_eq!(two((0, 3), (4, 8)), HeaderFault::Hole { begin: 3, end: 4 });
    assert_eq!(two((1, 4), (4, 8)), HeaderFault::Hole { begin: 0, end: 1 });
    assert_eq!(two((0, 4), (4, 7)), HeaderFault::Hole { begin: 7, end: 8 });
    assert_eq!(fault_of(&file_of("{}", b"x")), HeaderFault::Hole { begin: 0, end: 1 });
}

#[test]
fn unusual_but_valid() {
    // Nothing at all, padding, text, empty tensors in the middle, scalars, order unlike places.
    assert_eq!(open(&file_of("{}", b"")).unwrap().tensors().len(), 0);
    let header = format!(
        r#"{{"late":{},"__metadata__":{{"format":"pt"}},"early":{},"none":{},"scalar":{}}}   "#,
        tensor("BF16", "[2]", 4, 8),
        tensor("I16", "[2,1]", 0, 4),
        tensor("F64", "[3,0]", 4, 4),
        tensor("U8", "[]", 8, 9),
    );
    let file = open(&file_of(&header, b"123456789")).unwrap();
    let names: Vec<&str> = file.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["early", "none", "late", "scalar"]);
    assert_eq!(file.bytes("early").unwrap(), b"1234");
    assert_eq!(file.bytes("late").unwrap(), b"5678");
    assert_eq!(file.bytes("scalar").unwrap(), b"9");
    assert_eq!(file.bytes("none").unwrap(), b"");
    assert_eq!(file.info("late").unwrap().dtype, StoredDtype::BF16);
    assert_eq!(file.info("none").unwrap().shape, [3, 0]);
    assert_eq!(file.metadata(), [("format".to_owned(), "pt".to_owned())]);
    assert!(file.bytes("missing").unwrap_err().to_string().contains("no tensor `missing`"));
}

#[test]
fn what_is_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = SafetensorsFile::open(folder.path()).unwrap_err();
    assert!(matches!(error, SafetensorsError::NotAFile { .. }), "{error}");
    let error = SafetensorsFile::open(folder.path().join("none")).unwrap_err();
    assert!(error.to_string().starts_with("cannot open "), "{error}");
}

#[test]
fn messages_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("models--a--b/snapshots/1/vae");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("x.safetensors"), b"123").unwrap();
    let message = SafetensorsFile::open(dir.join("x.safetensors")).unwrap_err().to_string();
    assert!(message.contains("3 bytes, fewer than the 8"), "{message}");
    assert!(message.ends_with("download it again with `vidfit models pull a/b`"), "{message}");
}

/// Everything a file says of itself must hold once it was accepted.
fn check_consistent(bytes: &[u8]) {
    let Ok(file) = open(bytes) else { return };
    let mut covered = 0;
    for tensor in file.tensors() {
        assert_eq!(file.bytes(&tensor.name).unwrap().len() as u64, tensor.bytes());
        assert_eq!(tensor.elements() * tensor.dtype.element_bytes(), tensor.bytes());
        covered += tensor.bytes();
    }
    assert!(covered <= file.file_bytes());
}

proptest! {
    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        check_consistent(&bytes);
    }

    #[test]
    fn random_headers(header in r#"\{("[a-z]{1,2}":\{"dtype":"(F32|U8|X)","shape":\[[0-9]{0,20}\],"data_offsets":\[[0-9]{1,3},[0-9]{1,20}\]\},?){0,4}\}"#) {
        check_consistent(&file_of(&header, &[0; 64]));
    }

    #[test]
    fn mutated_files(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let header = format!(
            r#"{{"a":{},"b":{},"__metadata__":{{"x":"y"}}}}"#,
            tensor("F32", "[2,2]", 0, 16),
            tensor("BF16", "[3]", 16, 22),
        );
        let mut file = file_of(&header, &[7; 22]);
        for (place, byte) in changes {
            let at = place.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        check_consistent(&file);
    }
}
