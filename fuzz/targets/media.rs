//! Pictures and videos: whatever is in a file, it is refused, or has the size that its header says.
#![no_main]

mod file;

use file::Kept;
use libfuzzer_sys::fuzz_target;
use vidfit_media::{Resize, VideoSource, picture_size, read_picture};

/// Pixels up to which one is decoded: more only takes longer.
const MOST_PIXELS: u64 = 1 << 20;
/// Frames that are decoded of a video.
const MOST_FRAMES: usize = 4;

fn is_small((width, height): (u32, u32)) -> bool {
    u64::from(width) * u64::from(height) <= MOST_PIXELS
}

fuzz_target!(
    init: {
        // SAFETY: the engine calls this before it starts any thread.
        // Other programs' bugs are not looked for: ffmpeg is not found.
        unsafe { std::env::set_var("PATH", "") };
    },
    |bytes: &[u8]| {
        let kept = Kept::new();
        let path = kept.folder().join("media");
        std::fs::write(&path, bytes).expect("a file in the folder");
        if let Ok(size) = picture_size(&path) && is_small(size) {
            if let Ok(picture) = read_picture(&path) {
                assert_eq!((picture.width, picture.height), size);
                assert_eq!(picture.rgb.len() as u64, 3 * u64::from(size.0) * u64::from(size.1));
            }
        }
        let Ok(video) = VideoSource::open(&path) else { return };
        assert!(video.frames() > 0);
        assert!(video.times().is_none_or(|times| times.len() == video.frames()));
        let picked = video.pick(8.0, MOST_FRAMES);
        if is_small(video.size()) {
            if let Ok(frames) = video.read(&picked, 16, 16, Resize::Crop) {
                assert_eq!(frames.len(), picked.len());
            }
        }
    }
);
