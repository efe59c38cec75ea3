//! The index of an MP4's video track: where its frames are, when each is shown, how it is coded.

use super::boxes::{Body, BoxError};
use super::sps::{Colour, Sps};
use crate::limits::MAX_FRAMES;

/// Where a frame's bytes are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: u64,
    pub(super) bytes: u32,
}

/// How a frame must be turned, clockwise, to stand upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    No,
    Quarter,
    Half,
    ThreeQuarters,
}

/// What the decoder must know before the first frame.
#[derive(Debug)]
pub(super) struct AvcConfig {
    /// Bytes of the length before each NAL unit: 1, 2 or 4.
    pub(super) length_bytes: usize,
    /// Parameter sets, in their order.
    pub(super) parameter_sets: Vec<Vec<u8>>,
    pub(super) sps: Sps,
    /// Colours, as the stream or else the container declares them.
    pub(super) colour: Colour,
}

/// Why a track is not ours.
pub(super) enum Refusal {
    Damaged(BoxError),
    Foreign(String),
    NoFrames,
    TooManyFrames,
}

impl From<BoxError> for Refusal {
    fn from(error: BoxError) -> Self {
        Self::Damaged(error)
    }
}

impl From<&str> for Refusal {
    fn from(error: &str) -> Self {
        Self::Damaged(error.into())
    }
}

/// What the index says of the video track.
pub(super) struct Track {
    /// In the order of decoding.
    pub(super) samples: Vec<Sample>,
    /// How many frames the edit list hides before the first that is shown.
    pub(super) hidden: usize,
    /// Whether frames are shown in another order than they are decoded.
    pub(super) is_reordered: bool,
    /// When each frame is shown, in seconds since the first.
    pub(super) times: Vec<f64>,
    pub(super) turn: Turn,
    pub(super) config: AvcConfig,
}

/// Reads the first video track.
pub(super) fn read_track(index: Body<'_>, file_bytes: u64) -> Result<Track, Refusal> {
    if index.find(b"mvex")?.is_some() {
        return Err(Refusal::Foreign("a fragmented MP4".into()));
    }
    let track = video_track(index)?.ok_or(Refusal::NoFrames)?;
    let media = track.expect(b"mdia")?;
    let table = media.expect(b"minf")?.expect(b"stbl")?;

    let samples = samples(table, file_bytes)?;
    if samples.is_empty() {
        return Err(Refusal::NoFrames);
    }
    let turn = turn(track.expect(b"tkhd")?)?;
    let config = avc_config(table.expect(b"stsd")?)?;

    let shown_at = shown_at(table, samples.len())?;
    let ticks_per_second = time_scale(media.expect(b"mdhd")?)?;
    let edit = edit(track, time_scale(index.expect(b"mvhd")?)?, ticks_per_second)?;
    let is_reordered = !shown_at.is_sorted();
    let mut sorted = shown_at;
    sorted.sort_unstable();
    let hidden = sorted.partition_point(|&tick| tick < edit.start);
    let end = sorted.partition_point(|&tick| tick < edit.end);
    let shown = sorted.get(hidden..end).unwrap_or_default();
    let first = *shown.first().ok_or(Refusal::NoFrames)?;
    let times = shown.iter().map(|tick| (tick - first) as f64 / f64::from(ticks_per_second));
    Ok(Track { samples, hidden, is_reordered, times: times.collect(), turn, config })
}

fn video_track(index: Body<'_>) -> Result<Option<Body<'_>>, BoxError> {
    for found in index.boxes() {
        let found = found?;
        if &found.name == b"trak" {
            let handler = found.body.expect(b"mdia")?.expect(b"hdlr")?;
            if handler.bytes.get(8..12) == Some(b"vide") {
                return Ok(Some(found.body));
            }
        }
    }
    Ok(None)
}

/// Ticks per second, from `mvhd` or `mdhd`.
fn time_scale(mut header: Body<'_>) -> Result<u32, BoxError> {
    let version = header.version()?;
    header.sized(version)?;
    header.sized(version)?;
    match header.u32()? {
        0 => Err("its clock stands still".into()),
        ticks => Ok(ticks),
    }
}

/// What `tkhd` says about standing upright.
fn turn(mut header: Body<'_>) -> Result<Turn, Refusal> {
    let version = header.version()?;
    // Two dates, the track's number and 4 bytes, its length, 16 bytes of layers and volume.
    header.take(if version == 1 { 32 } else { 20 } + 16)?;
    let mut matrix = [0i32; 9];
    for value in &mut matrix {
        *value = header.u32()? as i32;
    }
    const ONE: i32 = 0x1_0000;
    let [a, b, _, c, d, ..] = matrix;
    match [a, b, c, d] {
        [ONE, 0, 0, ONE] => Ok(Turn::No),
        [0, ONE, minus, 0] if minus == -ONE => Ok(Turn::Quarter),
        [x, 0, 0, y] if x == -ONE && y == -ONE => Ok(Turn::Half),
        [0, minus, ONE, 0] if minus == -ONE => Ok(Turn::ThreeQuarters),
        _ => Err(Refusal::Foreign("a video that is mirrored or scaled by its MP4".into())),
    }
}

/// Which part of the track is shown, in its ticks.
struct Edit {
    start: i64,
    end: i64,
}

/// Understands no edits, one that cuts, and a wait before it, which is left out.
fn edit(track: Body<'_>, movie_ticks: u32, media_ticks: u32) -> Result<Edit, Refusal> {
    let everything = Edit { start: i64::MIN, end: i64::MAX };
    let Some(edits) = track.find(b"edts")? else {
        return Ok(everything);
    };
    let Some(mut list) = edits.find(b"elst")? else {
        return Ok(everything);
    };
    let version = list.version()?;
    let mut cuts = Vec::new();
    for mut entry in list.table(if version == 1 { 20 } else { 12 })? {
        let length = entry.sized(version)?;
        let start = if version == 1 { entry.u64()? as i64 } else { i64::from(entry.u32()? as i32) };
        let rate = entry.u32()?;
        match (start, rate) {
            (-1, _) if cuts.is_empty() => {}
            (0.., 0x1_0000) if cuts.is_empty() => cuts.push((start, length)),
            _ => return Err(Refusal::Foreign("an MP4 that is cut in more than one place".into())),
        }
    }
    match cuts[..] {
        [] => Ok(everything),
        // Files that were written as they were recorded do not know their length.
        [(start, 0)] => Ok(Edit { start, end: i64::MAX }),
        [(start, length)] => {
            let ticks = u128::from(length) * u128::from(media_ticks) / u128::from(movie_ticks);
            Ok(Edit { start, end: start.saturating_add(i64::try_from(ticks).unwrap_or(i64::MAX)) })
        }
        _ => Err(Refusal::Foreign("an MP4 that is cut in more than one place".into())),
    }
}

/// When each frame is shown, in ticks, in the order of decoding.
fn shown_at(table: Body<'_>, frames: usize) -> Result<Vec<i64>, Refusal> {
    let mut durations = table.expect(b"stts")?;
    durations.version()?;
    let mut times = Vec::with_capacity(frames);
    let mut now = 0i64;
    for mut entry in durations.table(8)? {
        let (count, ticks) = (entry.u32()? as usize, i64::from(entry.u32()?));
        for _ in 0..count.min(frames - times.len()) {
            times.push(now);
            now = now.saturating_add(ticks);
        }
    }
    if times.len() < frames {
        return Err("its index does not say when all frames are shown".into());
    }
    if let Some(mut offsets) = table.find(b"ctts")? {
        offsets.version()?;
        let mut rest = &mut times[..];
        for mut entry in offsets.table(8)? {
            // Version 0 calls them unsigned, but writers have put negative ones there, too.
            let (count, ticks) = (entry.u32()? as usize, i64::from(entry.u32()? as i32));
            let (now, later) = rest.split_at_mut(count.min(rest.len()));
            now.iter_mut().for_each(|time| *time = time.saturating_add(ticks));
            rest = later;
        }
    }
    Ok(times)
}

/// Where each frame is, in the order of decoding. All of them are in the file.
fn samples(table: Body<'_>, file_bytes: u64) -> Result<Vec<Sample>, Refusal> {
    let sizes = sample_sizes(table)?;
    let chunks = chunk_offsets(table)?;
    let mut runs = table.expect(b"stsc")?;
    runs.version()?;
    let mut runs = runs.table(12)?.peekable();

    let mut samples = Vec::with_capacity(sizes.len());
    let mut sizes = sizes.into_iter();
    while let Some(mut run) = runs.next() {
        let (first, per_chunk) = (run.u32()? as usize, run.u32()? as usize);
        let next = match runs.peek() {
            Some(&(mut next)) => next.u32()? as usize,
            None => chunks.len() + 1,
        };
        // Chunks are counted from 1.
        let run = chunks.get(first.wrapping_sub(1)..next.wrapping_sub(1));
        let run = run.ok_or("its index names parts that are not there")?;
        for &offset in run {
            let mut at = offset;
            for bytes in sizes.by_ref().take(per_chunk) {
                let frame = samples.len();
                if bytes > MAX_SAMPLE_BYTES {
                    return Err(Refusal::Damaged(format!("frame {frame} claims {bytes} bytes")));
                }
                let end = at.saturating_add(u64::from(bytes));
                if end > file_bytes {
                    return Err(Refusal::Damaged(format!(
                        "frame {frame} lies beyond the end of the file, which has {file_bytes} bytes"
                    )));
                }
                samples.push(Sample { at, bytes });
                at = end;
            }
        }
    }
    if sizes.next().is_some() {
        return Err("its index does not say where all frames are".into());
    }
    Ok(samples)
}

fn sample_sizes(table: Body<'_>) -> Result<Vec<u32>, Refusal> {
    let Some(mut sizes) = table.find(b"stsz")? else {
        return Err(Refusal::Foreign("an MP4 with a compact table of sizes".into()));
    };
    sizes.version()?;
    let common = sizes.u32()?;
    if common == 0 {
        let table = sizes.table(4)?;
        if table.len() > MAX_FRAMES {
            return Err(Refusal::TooManyFrames);
        }
        return table.map(|mut size| Ok(size.u32()?)).collect();
    }
    let count = sizes.u32()? as usize;
    if count > MAX_FRAMES {
        return Err(Refusal::TooManyFrames);
    }
    Ok(vec![common; count])
}

fn chunk_offsets(table: Body<'_>) -> Result<Vec<u64>, Refusal> {
    let wide = table.find(b"co64")?;
    let is_wide = wide.is_some();
    let mut offsets = wide.map_or_else(|| table.expect(b"stco"), Ok)?;
    offsets.version()?;
    let offsets = offsets.table(if is_wide { 8 } else { 4 })?;
    // Each has a frame at least.
    if offsets.len() > MAX_FRAMES {
        return Err(Refusal::TooManyFrames);
    }
    offsets
        .map(|mut offset| Ok(if is_wide { offset.u64()? } else { u64::from(offset.u32()?) }))
        .collect()
}

/// Most bytes of one coded frame.
const MAX_SAMPLE_BYTES: u32 = 128 << 20;

/// Bytes of a description of video before its own boxes.
const VISUAL_ENTRY_BYTES: usize = 78;

fn avc_config(mut descriptions: Body<'_>) -> Result<AvcConfig, Refusal> {
    descriptions.version()?;
    let count = descriptions.u32()?;
    let entry = descriptions.boxes().next().ok_or("its index does not say how it is coded")??;
    if count > 1 {
        return Err(Refusal::Foreign("an MP4 whose coding changes midway".into()));
    }
    match &entry.name {
        b"avc1" | b"avc3" => {}
        b"hvc1" | b"hev1" | b"dvh1" | b"dvhe" => return Err(Refusal::Foreign("HEVC video".into())),
        b"av01" => return Err(Refusal::Foreign("AV1 video".into())),
        b"vp09" => return Err(Refusal::Foreign("VP9 video".into())),
        b"mp4v" => return Err(Refusal::Foreign("MPEG-4 Part 2 video".into())),
        other => {
            return Err(Refusal::Foreign(format!("video coded as '{}'", other.escape_ascii())));
        }
    }
    let mut entry = entry.body;
    entry.take(VISUAL_ENTRY_BYTES)?;
    let declared = entry.find(b"colr")?.and_then(declared_colour);
    let (length_bytes, parameter_sets) = parameter_sets(entry.expect(b"avcC")?)?;
    let first_sps = parameter_sets.iter().find(|set| set.first().is_some_and(|b| b & 0x1f == 7));
    let Some(first_sps) = first_sps else {
        return Err(Refusal::Foreign("H.264 without its parameters in the index".into()));
    };
    let sps = Sps::parse(first_sps).ok_or("the parameters of its H.264 stream are broken")?;
    let colour = Colour {
        matrix: sps.colour.matrix.or(declared.and_then(|colour| colour.matrix)),
        is_full_range: sps.colour.is_full_range
            || declared.is_some_and(|colour| colour.is_full_range),
    };
    Ok(AvcConfig { length_bytes, parameter_sets, sps, colour })
}

fn parameter_sets(mut config: Body<'_>) -> Result<(usize, Vec<Vec<u8>>), BoxError> {
    // Version, profile, compatibility, level.
    config.take(4)?;
    let length_bytes = usize::from(config.u8()? & 3) + 1;
    let mut sets = Vec::new();
    for mask in [0x1f, 0xff] {
        for _ in 0..config.u8()? & mask {
            let bytes = config.u16()?;
            sets.push(config.take(usize::from(bytes))?.bytes.to_vec());
        }
    }
    Ok((length_bytes, sets))
}

/// Matrix and range of a `colr`.
fn declared_colour(mut colr: Body<'_>) -> Option<Colour> {
    let kind = colr.take(4).ok()?;
    if kind.bytes != b"nclx" && kind.bytes != b"nclc" {
        return None;
    }
    colr.take(4).ok()?; // primaries and transfer
    let matrix = colr.u16().ok()?;
    let is_full_range = kind.bytes == b"nclx" && colr.u8().is_ok_and(|flags| flags & 0x80 != 0);
    Some(Colour { matrix: Some(matrix as u8).filter(|&matrix| matrix != 2), is_full_range })
}
