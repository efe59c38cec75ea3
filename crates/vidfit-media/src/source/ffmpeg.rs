//! Any other video, through the ffmpeg and ffprobe of the system.
//!
//! They are started directly, never through a shell. The input is an absolute path behind `file:`,
//! so that nothing in its name is an option, a pattern or another protocol; and files and pipes are
//! the only protocols, so that a playlist in disguise reaches no network.

mod program;

use std::ffi::OsString;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Facts, Wanted};
use crate::limits::{MAX_FRAME_PIXELS, MAX_FRAMES, check_size};
use crate::{InputError, Picture};
use program::Running;

/// How long ffmpeg may be silent. It is so while it skips a long way to the next wanted frame.
const PATIENCE: Duration = Duration::from_secs(60);

/// A video that ffmpeg reads for us.
#[derive(Debug)]
pub(super) struct Ffmpeg {
    path: PathBuf,
    input: OsString,
    size: (u32, u32),
}

impl Ffmpeg {
    /// Asks ffprobe for the size and for the times of all frames. These come from the container:
    /// nothing is decoded. `what` says why the video is not ours to read.
    pub(super) fn open(path: &Path, what: &str) -> Result<(Self, Facts), InputError> {
        let opening = |source| InputError::io("opening", path, source);
        let mut input = OsString::from("file:");
        input.push(path.canonicalize().map_err(opening)?);
        let found = probe(path, &input, what)?;
        let (Some(width), Some(height)) = (found.width, found.height) else {
            let path = path.to_path_buf();
            let said = "it finds no video in it".into();
            return Err(InputError::Ffmpeg { path, said });
        };
        let (width, height) = if found.is_turned { (height, width) } else { (width, height) };
        check_size(path, (width, height), MAX_FRAME_PIXELS)?;
        if found.times.is_empty() {
            return Err(InputError::NoFrames { path: path.to_path_buf() });
        }
        let frames = found.times.len();
        let facts = Facts { width, height, frames, times: Some(since_first(&found)) };
        let ffmpeg = Self { path: path.to_path_buf(), input, size: (width, height) };
        Ok((ffmpeg, facts))
    }

    /// Lets ffmpeg decode up to the last of `indices`, strictly, and hands these over.
    pub(super) fn read(
        &self,
        indices: &[usize],
        wanted: &mut Wanted<'_>,
    ) -> Result<(), InputError> {
        let Some(&last) = indices.last() else {
            return Ok(());
        };
        let mut command = tool("ffmpeg");
        command.args(["-xerror", "-err_detect", "explode"]);
        command.args(["-protocol_whitelist", "file,pipe"]).arg("-i").arg(&self.input);
        command.args(["-map", "0:v:0", "-frames:v"]).arg((last + 1).to_string());
        // Frames as they are, none doubled or dropped for the sake of a steady rate.
        command.args(["-vf", "settb=1/25,setpts=N", "-r", "25"]);
        command.args(["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "pipe:1"]);
        let mut running = Running::start(&mut command, &self.path, "such a video", PATIENCE)?;
        let mut pixels = Vec::new();
        for frame in 0..=last {
            wanted.go_on()?;
            let size = match read_ppm(&mut running.output, &mut pixels) {
                Ok(size) => size,
                Err(_) => return Err(running.failed_at(frame)),
            };
            running.alive();
            if size != self.size {
                return Err(InputError::Unsupported {
                    path: self.path.clone(),
                    reason: format!(
                        "frame {frame} is {}x{} pixels, not {}x{}. Convert it to one size",
                        size.0, size.1, self.size.0, self.size.1
                    ),
                });
            }
            if indices.binary_search(&frame).is_ok() {
                let (width, height) = size;
                wanted.take(Picture { width, height, rgb: std::mem::take(&mut pixels) });
                running.alive();
            }
        }
        Ok(())
    }
}

/// The times in the order of showing. A frame without one comes where its number says.
fn since_first(found: &Probed) -> Vec<f64> {
    let frame_seconds = 1.0 / found.fps.unwrap_or(25.0);
    let numbered = found.times.iter().enumerate();
    let mut times: Vec<f64> = numbered
        .map(|(frame, &time)| if time.is_nan() { frame as f64 * frame_seconds } else { time })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    let first = times.first().copied().unwrap_or_default();
    times.into_iter().map(|time| time - first).collect()
}

/// What ffprobe tells.
#[derive(Default)]
struct Probed {
    width: Option<u32>,
    height: Option<u32>,
    /// Whether it is stored lying on its side.
    is_turned: bool,
    /// Mean rate in frames per second, for frames without a time of their own.
    fps: Option<f64>,
    /// In seconds, in the order of decoding; not a number where the container does not say.
    times: Vec<f64>,
}

fn probe(path: &Path, input: &OsString, what: &str) -> Result<Probed, InputError> {
    let mut command = tool("ffprobe");
    command.args(["-protocol_whitelist", "file,pipe", "-select_streams", "v:0"]);
    command.args(["-show_entries", "stream=width,height,avg_frame_rate"]);
    command.args(["-show_entries", "stream_side_data=rotation"]);
    command.args(["-show_entries", "packet=pts_time,dts_time,flags"]);
    command.args(["-of", "compact", "-i"]).arg(input);
    let mut running = Running::start(&mut command, path, what, PATIENCE)?;
    let mut probed = Probed::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line is short; more would be something else.
        let mut bounded = (&mut running.output).take(4096);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => running.alive(),
            Err(_) => return Err(running.failed_at(0)),
        }
        probed.take_line(&String::from_utf8_lossy(&line));
        if probed.times.len() > MAX_FRAMES {
            return Err(InputError::TooManyFrames { path: path.to_path_buf() });
        }
    }
    running.finish()?;
    Ok(probed)
}

impl Probed {
    /// A line such as `packet|pts_time=0.04|dts_time=0.04|flags=K__`.
    fn take_line(&mut self, line: &str) {
        let value = |key: &str| {
            line.trim_end().split('|').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
        };
        if line.starts_with("packet|") {
            // What an edit list hides is decoded, but not shown.
            if value("flags").is_some_and(|flags| flags.contains('D')) {
                return;
            }
            let number = |key| value(key)?.parse::<f64>().ok().filter(|time| time.is_finite());
            self.times.push(number("pts_time").or(number("dts_time")).unwrap_or(f64::NAN));
            return;
        }
        if let (Some(width), Some(height)) = (value("width"), value("height")) {
            self.width = width.parse().ok();
            self.height = height.parse().ok();
        }
        if let Some((frames, seconds)) = value("avg_frame_rate").and_then(|r| r.split_once('/')) {
            let rate = frames.parse::<f64>().unwrap_or(0.0) / seconds.parse::<f64>().unwrap_or(1.0);
            self.fps = Some(rate).filter(|rate| rate.is_finite() && *rate > 0.0);
        }
        if let Some(degrees) = value("rotation").and_then(|degrees| degrees.parse::<f64>().ok()) {
            self.is_turned = (degrees.abs() / 90.0).round() as i64 % 2 == 1;
        }
    }
}

/// `program`, quiet and without a terminal.
fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-v", "error", "-hide_banner"]);
    if program == "ffmpeg" {
        command.arg("-nostdin");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Reads one picture in ppm's binary form, `P6 width height 255` and its pixels, into `pixels`.
fn read_ppm(input: &mut impl BufRead, pixels: &mut Vec<u8>) -> std::io::Result<(u32, u32)> {
    let mut words = Vec::new();
    while words.len() < 4 {
        let mut word = String::new();
        loop {
            let mut byte = [0];
            input.read_exact(&mut byte)?;
            if byte[0].is_ascii_whitespace() {
                break;
            }
            word.push(char::from(byte[0]));
            if word.len() > 10 {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
        }
        words.push(word);
    }
    let side = |word: &str| word.parse::<u32>().ok().filter(|&side| side > 0);
    let (Some(width), Some(height), "P6", "255") =
        (side(&words[1]), side(&words[2]), &*words[0], &*words[3])
    else {
        return Err(std::io::ErrorKind::InvalidData.into());
    };
    if u64::from(width) * u64::from(height) > MAX_FRAME_PIXELS {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    pixels.clear();
    let bytes = u64::from(width) * u64::from(height) * 3;
    if input.take(bytes).read_to_end(pixels)? as u64 != bytes {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok((width, height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_a_pipe_are_read_one_by_one() {
        let mut pipe = &b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyzP6\n9 9\n255\nshort"[..];
        let mut pixels = Vec::new();
        assert_eq!(read_ppm(&mut pipe, &mut pixels).unwrap(), (2, 1));
        assert_eq!(pixels, b"abcdef");
        assert_eq!(read_ppm(&mut pipe, &mut pixels).unwrap(), (1, 1));
        assert_eq!(pixels, b"xyz");
        assert!(read_ppm(&mut pipe, &mut pixels).is_err());
        for wrong in
            ["P5\n2 1\n255\n", "P6\n0 1\n255\n", "P6\n99999 99999\n255\n", "P6\n2 1\n65535\n"]
        {
            assert!(read_ppm(&mut wrong.as_bytes(), &mut pixels).is_err(), "{wrong}");
        }
    }
}
