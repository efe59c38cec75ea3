//! Headers of safetensors files: every one is refused, or true.
#![no_main]

mod file;

use file::Kept;
use libfuzzer_sys::fuzz_target;
use vidfit_engine::safetensors::SafetensorsFile;

fuzz_target!(|bytes: &[u8]| {
    let kept = Kept::new();
    let path = kept.safetensors(bytes);
    let Ok(file) = SafetensorsFile::open(path) else { return };
    for info in file.tensors() {
        let bytes = file.bytes(&info.name).expect("a tensor of the header");
        assert_eq!(bytes.len() as u64, info.bytes());
        assert_eq!(info.elements() * info.dtype.element_bytes(), info.bytes());
        let stored = file.stored(&info.name).expect("a tensor of the header");
        let mut read = vec![0; bytes.len()];
        stored.read(0, &mut read).expect("bytes of the file");
        assert_eq!(read, bytes);
    }
});
