//! Pictures and videos, read: sound ones, broken ones, and ones that pretend.
#![allow(clippy::unwrap_used)] // a test that cannot go on should stop

mod animations;
mod corrupt;
#[cfg(feature = "h264")]
mod ffmpeg;
mod folders;
#[cfg(feature = "h264")]
mod mp4;
mod mutations;
mod pictures;
mod samples;
