//! Small inputs with random damage: each is read or refused, none is a panic or a hang.

use std::fs;
use std::path::{Path, PathBuf};

use vidfit_media::{VideoSource, read_picture};

use crate::samples::{fixture, write_clip};

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// Flips some bytes, and now and then cuts off the rest. The first four stay: what the file is
/// called is another test.
fn damaged(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = 4 + random.below(bytes.len() - 4);
        bytes[at] = match random.below(3) {
            0 => bytes[at] ^ 1 << random.below(8),
            1 => random.below(256) as u8,
            _ => [0, 0xff, 0x7f, 0x80][random.below(4)],
        };
    }
    if random.below(5) == 0 {
        bytes.truncate(4 + random.below(bytes.len() - 4));
    }
    bytes
}

/// Reads `times` damaged versions of `whole`; says how many could be read.
fn try_all(folder: &Path, whole: &Path, times: u32, read: impl Fn(&Path) -> bool) {
    let name = whole.file_name().unwrap().to_str().unwrap();
    let whole = fs::read(whole).unwrap();
    let path = folder.join("damaged");
    let mut random = Random(0x2545_f491_4f6c_dd1d ^ whole.len() as u64);
    let begun = std::time::Instant::now();
    let mut read_anyway = 0;
    for _ in 0..times {
        fs::write(&path, damaged(&whole, &mut random)).unwrap();
        read_anyway += u32::from(read(&path));
        // Some systems wait for the disk when a file is overwritten.
        fs::remove_file(&path).unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{name}: {read_anyway} of {times} could be read, {seconds:.1} s");
    assert!(read_anyway < times, "{name}: damage never shows");
}

#[test]
fn damaged_pictures_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "rgba.png",
        "palette.png",
        "grey16.png",
        "turned.png",
        "photo.jpg",
        "cmyk.jpg",
        "lossless.webp",
        "lossy.webp",
    ] {
        let sample = fixture(&format!("samples/{name}"));
        try_all(folder.path(), &sample, 2000, |path| read_picture(path).is_ok());
    }
}

fn read_video(path: &Path) -> bool {
    VideoSource::open(path).is_ok_and(|source| {
        let all: Vec<usize> = (0..source.frames().min(100)).collect();
        source.read(&all, 16, 16, Default::default()).is_ok()
    })
}

#[test]
fn damaged_animations_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let gif: PathBuf = folder.path().join("a.gif");
    write_clip(&gif, 16, 16, 3, 8.0);
    try_all(folder.path(), &gif, 2000, read_video);
    try_all(folder.path(), &fixture("moving/moving.webp"), 1000, read_video);
    try_all(folder.path(), &fixture("moving/moving.png"), 1000, read_video);
}
