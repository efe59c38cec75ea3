//! Whole videos, written and read back.
#![allow(clippy::unwrap_used)] // a test that cannot go on should stop

mod atomic;
mod clips;
#[cfg(feature = "h264")]
mod decode;
#[cfg(feature = "h264")]
mod ffmpeg;
mod gif;
#[cfg(feature = "h264")]
mod mp4;
mod png;
