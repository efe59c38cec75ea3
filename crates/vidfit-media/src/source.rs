//! Videos in: how long, how fast and how large they are, and then the frames that are wanted.

mod animation;
#[cfg(feature = "h264")]
mod boxes;
mod ffmpeg;
mod folder;
#[cfg(feature = "h264")]
mod h264;
#[cfg(feature = "h264")]
mod mp4;
mod pick;
#[cfg(feature = "h264")]
mod sps;
#[cfg(feature = "h264")]
mod track;
mod wanted;
#[cfg(feature = "h264")]
mod yuv;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::content::Content;
use crate::resize::Resize;
use crate::{InputError, Picture};
use animation::Animation;
use ffmpeg::Ffmpeg;
use folder::Folder;
#[cfg(feature = "h264")]
use mp4::{Mp4, Opened};
use wanted::Wanted;

pub use pick::pick_frames;

/// A video to read from. Opening it reads no pixels.
#[derive(Debug)]
pub struct VideoSource {
    path: PathBuf,
    kind: Kind,
    facts: Facts,
}

/// What is known of a video before any frame is decoded.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Width in pixels, upright.
    pub(crate) width: u32,
    /// Height in pixels, upright.
    pub(crate) height: u32,
    pub(crate) frames: usize,
    /// When each frame is shown, in seconds since the first; `None` if nothing says so.
    pub(crate) times: Option<Vec<f64>>,
}

#[derive(Debug)]
enum Kind {
    Animation(Animation),
    Ffmpeg(Ffmpeg),
    Folder(Folder),
    #[cfg(feature = "h264")]
    Mp4(Box<Mp4>),
}

impl VideoSource {
    /// Opens an MP4 or MOV, a GIF, an animated WebP or PNG, a folder of pictures or, where there
    /// is an ffmpeg, any other video; told by the content, not by the name.
    ///
    /// # Errors
    ///
    /// [`InputError`] says what is wrong with the file and what to give instead.
    pub fn open(path: &Path) -> Result<Self, InputError> {
        let content = Content::of(path)?;
        let owned = || path.to_path_buf();
        let (kind, facts) = match content {
            Content::Folder => {
                let (folder, facts) = Folder::open(path)?;
                (Kind::Folder(folder), facts)
            }
            Content::Gif | Content::Apng | Content::AnimatedWebP => {
                let (animation, facts) = Animation::open(path, content)?;
                (Kind::Animation(animation), facts)
            }
            Content::Mp4 => open_mp4(path)?,
            Content::Other => {
                let (ffmpeg, facts) = Ffmpeg::open(path, "what is neither MP4 nor GIF")?;
                (Kind::Ffmpeg(ffmpeg), facts)
            }
            Content::Png | Content::Jpeg | Content::WebP | Content::BoxedPicture => {
                return Err(InputError::IsAPicture { path: owned(), form: content.name() });
            }
            Content::Text => {
                return Err(InputError::NotAVideo { path: owned(), found: content.name() });
            }
        };
        Ok(Self { path: owned(), kind, facts })
    }

    /// The source as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many frames there are, at least 1.
    pub fn frames(&self) -> usize {
        self.facts.frames
    }

    /// Width and height in pixels, as shown upright.
    pub fn size(&self) -> (u32, u32) {
        (self.facts.width, self.facts.height)
    }

    /// When each frame is shown, in seconds since the first; `None` for a folder of pictures.
    pub fn times(&self) -> Option<&[f64]> {
        self.facts.times.as_deref()
    }

    /// Mean rate in frames per second; `None` for a folder of pictures and for a single frame.
    pub fn fps(&self) -> Option<f64> {
        let times = self.times()?;
        let span = times.last()? - times.first()?;
        (span > 0.0).then(|| (times.len() - 1) as f64 / span)
    }

    /// The frames, counted from 0, that stand for this video at `fps` frames per second: see
    /// [`pick_frames`]. A folder of pictures is taken to have that rate already.
    pub fn pick(&self, fps: f64, most: usize) -> Vec<usize> {
        match self.times() {
            Some(times) => pick_frames(times, fps, most),
            None => (0..self.frames().min(most)).collect(),
        }
    }

    /// The frames `indices`, each at `width` x `height` pixels. `indices` rise.
    ///
    /// Frames are decoded in order and made small at once: no more than one is in memory at the
    /// source's size, besides those that the decoder itself keeps.
    ///
    /// # Errors
    ///
    /// [`InputError::Damaged`] for a frame that cannot be decoded whole,
    /// [`InputError::NoSuchFrame`] for indices that do not rise or are beyond the end, and what the
    /// system or ffmpeg refuse.
    pub fn read(
        &self,
        indices: &[usize],
        width: u32,
        height: u32,
        resize: Resize,
    ) -> Result<Vec<Picture>, InputError> {
        self.read_until(indices, width, height, resize, &AtomicBool::new(false))
    }

    /// As [`VideoSource::read`], unless `stop` becomes true: it is looked at before each frame that
    /// is decoded, wanted or not.
    ///
    /// # Errors
    ///
    /// [`InputError::Interrupted`] if `stop` became true; else as [`VideoSource::read`].
    pub fn read_until(
        &self,
        indices: &[usize],
        width: u32,
        height: u32,
        resize: Resize,
        stop: &AtomicBool,
    ) -> Result<Vec<Picture>, InputError> {
        self.check_indices(indices)?;
        let nothing_yet = || Wanted::new(&self.path, (width, height), resize, stop);
        let mut wanted = nothing_yet();
        match &self.kind {
            Kind::Animation(animation) => animation.read(indices, &mut wanted)?,
            Kind::Ffmpeg(ffmpeg) => ffmpeg.read(indices, &mut wanted)?,
            Kind::Folder(folder) => folder.read(indices, &mut wanted)?,
            #[cfg(feature = "h264")]
            Kind::Mp4(mp4) => match mp4.read(indices, &mut wanted) {
                Err(ours @ InputError::Damaged { .. }) => {
                    // ffmpeg knows more of H.264. It reads strictly: damage stays damage.
                    wanted = nothing_yet();
                    let theirs = self.ffmpeg().and_then(|it| it.read(indices, &mut wanted));
                    theirs.map_err(|theirs| match theirs {
                        InputError::Interrupted { .. } => theirs,
                        _ => ours,
                    })?;
                }
                result => result?,
            },
        }
        Ok(wanted.into_frames())
    }

    /// The same frames through ffmpeg.
    #[cfg(feature = "h264")]
    fn ffmpeg(&self) -> Result<Ffmpeg, InputError> {
        let (ffmpeg, facts) = Ffmpeg::open(&self.path, "it")?;
        if (facts.frames, facts.width, facts.height)
            != (self.frames(), self.size().0, self.size().1)
        {
            return Err(InputError::damaged(&self.path, "ffmpeg sees another video in it"));
        }
        Ok(ffmpeg)
    }

    fn check_indices(&self, indices: &[usize]) -> Result<(), InputError> {
        let beyond = indices.iter().find(|&&index| index >= self.frames());
        let unsorted = indices.windows(2).find(|pair| pair[0] >= pair[1]).map(|pair| &pair[1]);
        match beyond.or(unsorted) {
            None => Ok(()),
            Some(&index) => Err(InputError::NoSuchFrame {
                path: self.path.clone(),
                index,
                frames: self.frames(),
            }),
        }
    }
}

#[cfg(feature = "h264")]
fn open_mp4(path: &Path) -> Result<(Kind, Facts), InputError> {
    match Mp4::open(path)? {
        Opened::Ours(mp4, facts) => Ok((Kind::Mp4(mp4), facts)),
        Opened::Foreign(what) => {
            let (ffmpeg, facts) = Ffmpeg::open(path, &what)?;
            Ok((Kind::Ffmpeg(ffmpeg), facts))
        }
    }
}

#[cfg(not(feature = "h264"))]
fn open_mp4(path: &Path) -> Result<(Kind, Facts), InputError> {
    let (ffmpeg, facts) = Ffmpeg::open(path, "MP4 in a build without H.264")?;
    Ok((Kind::Ffmpeg(ffmpeg), facts))
}
