//! Uploads, thumbnails and GIFs, with the readers and writers of `vidfit-media`.

use crate::backend::{Reference, ReferenceKind, Refusal};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use vidfit_media::{
    Fps, InputError, Picture, Resize, VideoSettings, VideoSource, VideoWriter, picture_size,
    read_picture,
};

/// Most pixels of an upload's picture: 150 MB as RGB.
const MAX_PIXELS: u64 = 50_000_000;
/// Longest side of a GIF, which has no compression worth the name.
const MAX_GIF_SIDE: u32 = 480;
/// Most frames a second that a GIF is given: more are shown slowly by many programs.
const MAX_GIF_FPS: f64 = 25.0;

/// What the first bytes of an upload say it is, with the ending of its name.
///
/// Nothing else is taken: what is not known here would be handed to programs that know hundreds of
/// forms, and their flaws.
pub(crate) fn sniff(path: &Path) -> std::io::Result<Option<(ReferenceKind, &'static str)>> {
    let mut head = [0; 16];
    let mut read = 0;
    let mut file = File::open(path)?;
    while read < head.len() {
        match file.read(&mut head[read..])? {
            0 => break,
            n => read += n,
        }
    }
    let head = &head[..read];
    let at = |from: usize| head.get(from..from + 4).unwrap_or_default();
    Ok(match head {
        _ if head.starts_with(b"\x89PNG\r\n\x1a\n") => Some((ReferenceKind::Image, "png")),
        _ if head.starts_with(b"\xff\xd8\xff") => Some((ReferenceKind::Image, "jpg")),
        _ if at(0) == b"RIFF" && at(8) == b"WEBP" => Some((ReferenceKind::Image, "webp")),
        _ if head.starts_with(b"GIF8") => Some((ReferenceKind::Video, "gif")),
        _ if at(4) == b"ftyp" && !matches!(at(8), b"avif" | b"heic" | b"heix" | b"mif1") => {
            Some((ReferenceKind::Video, "mp4"))
        }
        _ if head.starts_with(b"\x1a\x45\xdf\xa3") => Some((ReferenceKind::Video, "webm")),
        _ => None,
    })
}

/// Looks at an upload, and decodes what is needed to believe it.
pub(crate) fn look(path: &Path, kind: ReferenceKind) -> Result<Reference, Refusal> {
    match kind {
        ReferenceKind::Image => match look_at_picture(path) {
            // What moves is a video, whatever it begins like.
            Err(_) if VideoSource::open(path).is_ok() => look_at_video(path),
            looked => looked,
        },
        ReferenceKind::Video => look_at_video(path),
    }
}

fn look_at_picture(path: &Path) -> Result<Reference, Refusal> {
    let (width, height) = picture_size(path).map_err(unreadable)?;
    check_pixels(width, height)?;
    read_picture(path).map_err(unreadable)?;
    Ok(Reference { path: path.into(), kind: ReferenceKind::Image, width, height, frames: 1 })
}

fn look_at_video(path: &Path) -> Result<Reference, Refusal> {
    let video = VideoSource::open(path).map_err(unreadable)?;
    let (width, height) = video.size();
    check_pixels(width, height)?;
    video.read(&[0], 16, 16, Resize::Stretch).map_err(unreadable)?;
    let frames = video.frames();
    Ok(Reference { path: path.into(), kind: ReferenceKind::Video, width, height, frames })
}

fn check_pixels(width: u32, height: u32) -> Result<(), Refusal> {
    if u64::from(width) * u64::from(height) <= MAX_PIXELS {
        return Ok(());
    }
    Err(bad_file(format!(
        "the file is {width}x{height} pixels, and at most {} megapixels are taken: send a smaller one",
        MAX_PIXELS / 1_000_000
    )))
}

fn unreadable(error: InputError) -> Refusal {
    bad_file(error)
}

fn bad_file(message: impl std::fmt::Display) -> Refusal {
    Refusal::new("invalid_file", message).about("input_reference")
}

/// Makes a PNG of a video's first frame.
pub(crate) fn thumbnail(video: &Path, to: &Path) -> Result<(), Refusal> {
    let video = VideoSource::open(video).map_err(not_made)?;
    let (width, height) = video.size();
    let frames = video.read(&[0], width, height, Resize::Stretch).map_err(not_made)?;
    let Some(frame) = frames.into_iter().next() else {
        return Err(not_made("the video has no frame"));
    };
    write_png(&frame, to).map_err(not_made)
}

fn write_png(picture: &Picture, to: &Path) -> Result<(), std::io::Error> {
    let mut file = tempfile::NamedTempFile::new_in(to.parent().unwrap_or(Path::new(".")))?;
    let mut encoder = png::Encoder::new(BufWriter::new(&mut file), picture.width, picture.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.rgb)?;
    writer.finish()?;
    file.flush()?;
    file.persist(to).map_err(|error| error.error)?;
    Ok(())
}

/// Makes a GIF of a video.
pub(crate) fn gif(video: &Path, to: &Path) -> Result<(), Refusal> {
    let video = VideoSource::open(video).map_err(not_made)?;
    let (width, height) = within(video.size(), MAX_GIF_SIDE);
    let fps = video.fps().unwrap_or(8.0).min(MAX_GIF_FPS);
    let picked = video.pick(fps, video.frames());
    let settings = VideoSettings::new(width, height, Fps::new(fps).map_err(not_made)?);
    let mut writer = VideoWriter::create(to, settings).map_err(not_made)?;
    // A few at a time: all frames of a long video would take much memory.
    for picked in picked.chunks(32) {
        for frame in video.read(picked, width, height, Resize::Stretch).map_err(not_made)? {
            writer.write_frame(&frame.rgb).map_err(not_made)?;
        }
    }
    writer.finish().map_err(not_made)?;
    Ok(())
}

/// A size of the same shape with no side longer than `most`.
fn within((width, height): (u32, u32), most: u32) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= most {
        return (width, height);
    }
    let scaled = |side: u32| (u64::from(side) * u64::from(most) / u64::from(longest)).max(1) as u32;
    (scaled(width), scaled(height))
}

fn not_made(error: impl std::fmt::Display) -> Refusal {
    Refusal::new("not_made", error)
}
