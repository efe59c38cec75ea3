//! Pictures in: PNG, JPEG and WebP as 8-bit RGB.

use std::fs::File;
use std::io::{self, BufReader, Cursor, ErrorKind, Read, Seek};
use std::path::Path;

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, Limits, RgbImage, RgbaImage};

use crate::InputError;
use crate::chunks::{png_chunks, webp_chunks};
use crate::content::Content;
use crate::jpeg::{has_its_end, jpeg_head};
use crate::limits::{
    MAX_DECODER_BYTES, MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS, MAX_SIDE, check_size,
};
use crate::resize::{Resize, resized};

/// A picture, or a frame of a video.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Rows of 8-bit R, G, B from the top left, without padding: height x width x 3 bytes.
    pub rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture {{ {}x{} }}", self.width, self.height)
    }
}

impl Picture {
    /// The same picture at `width` x `height` pixels, both at least 1.
    ///
    /// The numbers are Pillow's with its Lanczos filter, to the bit: those of
    /// [`Resize::Stretch`] from `Image.resize`, of [`Resize::Crop`] from `ImageOps.fit`, of
    /// [`Resize::Pad`] from `ImageOps.pad`.
    #[must_use]
    pub fn resized(self, width: u32, height: u32, resize: Resize) -> Self {
        resized(self, width, height, resize)
    }
}

/// Reads a PNG, JPEG or WebP, whatever its name ends in.
///
/// The pixels are those of the reference's `load_image`: turned upright by their EXIF
/// orientation; palettes and greys become colours; transparency is dropped, not blended; colour
/// profiles are not applied. One thing differs: of 16-bit greys we take the upper 8 bits, as
/// Pillow does of 16-bit colours, where Pillow cuts off everything above 255 and returns white.
///
/// # Errors
///
/// [`InputError`] says what is wrong with the file and what to give instead; a size out of bounds
/// ([`InputError::TooLarge`], [`InputError::TooSmall`]) is found in the header, before memory is
/// taken.
pub fn read_picture(path: &Path) -> Result<Picture, InputError> {
    OpenPicture::open(path)?.read()
}

/// The width and height, in pixels, of what [`read_picture`] would return, from the header alone.
///
/// # Errors
///
/// As [`read_picture`], short of damage behind the header, which is found when it is read.
pub fn picture_size(path: &Path) -> Result<(u32, u32), InputError> {
    Ok(OpenPicture::open(path)?.upright_size())
}

/// A picture whose header has been read and believed.
struct OpenPicture<'a> {
    path: &'a Path,
    content: Content,
    decoder: Box<dyn ImageDecoder>,
    orientation: Orientation,
}

impl<'a> OpenPicture<'a> {
    fn open(path: &'a Path) -> Result<Self, InputError> {
        let content = Content::of(path)?;
        let mut decoder = decoder_of_header(path, content)?;
        check_size(path, decoder.dimensions(), MAX_PICTURE_PIXELS)?;
        // A picture with unreadable EXIF is upright, as in the reference.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        Ok(Self { path, content, decoder, orientation })
    }

    fn upright_size(&self) -> (u32, u32) {
        let (width, height) = self.decoder.dimensions();
        match self.orientation {
            Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH => (height, width),
            _ => (width, height),
        }
    }

    fn read(self) -> Result<Picture, InputError> {
        let decoder = match self.content {
            Content::Png | Content::Apng => {
                png_chunks(self.path, &mut open(self.path)?, &mut |_| Ok(()))?;
                self.decoder
            }
            Content::Jpeg => whole_jpeg(self.path, self.decoder.dimensions())?,
            _ => self.decoder,
        };
        let pixels = DynamicImage::from_decoder(decoder).map_err(|e| refused(self.path, &e))?;
        let mut upright = DynamicImage::ImageRgb8(into_rgb8(pixels));
        upright.apply_orientation(self.orientation);
        let rgb = upright.into_rgb8();
        Ok(Picture { width: rgb.width(), height: rgb.height(), rgb: rgb.into_raw() })
    }
}

/// A decoder that has read the header, and of a JPEG has nothing more.
fn decoder_of_header(path: &Path, content: Content) -> Result<Box<dyn ImageDecoder>, InputError> {
    let owned = || path.to_path_buf();
    match content {
        // A PNG that moves also holds one picture for those who only read pictures.
        Content::Png | Content::Apng => {
            let mut file = open(path)?;
            // Before the decoder sees it: the decoder would only say that a limit was met.
            check_size(path, png_size(path, &mut file)?, MAX_PICTURE_PIXELS)?;
            Ok(Box::new(PngDecoder::with_limits(file, limits()).map_err(|e| refused(path, &e))?))
        }
        Content::Jpeg => {
            let mut file = open(path)?;
            let head = jpeg_head(path, &mut file)?;
            let header = Cursor::new(head.bytes);
            let decoder = JpegDecoder::new(header).map_err(|e| refused(path, &e))?;
            check_room(path, &file, decoder.dimensions(), head.kept_bytes_per_pixel)?;
            Ok(Box::new(decoder))
        }
        Content::WebP => {
            let mut file = open(path)?;
            // A decoder takes room for a part as soon as it hears how long that is.
            webp_chunks(path, &mut file, &mut |_| Ok(()))?;
            let again = open(path)?;
            let decoder = WebPDecoder::new(again).map_err(|e| refused(path, &e))?;
            // Without losses it decodes into colours and transparency, whatever it returns.
            check_room(path, &file, decoder.dimensions(), 4)?;
            Ok(Box::new(decoder))
        }
        Content::Folder => Err(InputError::IsAFolder { path: owned() }),
        Content::Gif | Content::Mp4 | Content::AnimatedWebP => {
            Err(InputError::IsAVideo { path: owned(), form: content.name() })
        }
        Content::BoxedPicture => Err(InputError::Unsupported {
            path: owned(),
            reason: "AVIF and HEIF pictures are not read. Save it as a PNG, JPEG or WebP".into(),
        }),
        Content::Text | Content::Other => {
            Err(InputError::NotAPicture { path: owned(), found: content.name() })
        }
    }
}

/// A JPEG from its beginning to its end, which is there; of the size that its header gave.
fn whole_jpeg(path: &Path, size: (u32, u32)) -> Result<Box<dyn ImageDecoder>, InputError> {
    let reading = |source| InputError::io("reading", path, source);
    let mut file = open(path)?;
    if !has_its_end(&mut file).map_err(reading)? {
        return Err(InputError::damaged(path, "the JPEG breaks off before its end"));
    }
    file.rewind().map_err(reading)?;
    let decoder = JpegDecoder::new(file).map_err(|e| refused(path, &e))?;
    match decoder.dimensions() == size {
        true => Ok(Box::new(decoder)),
        false => Err(InputError::damaged(path, "it changed while it was read")),
    }
}

/// Checks what a decoder that knows no limits takes beside its result: the file, and so many bytes
/// for each pixel.
fn check_room(
    path: &Path,
    file: &BufReader<File>,
    size: (u32, u32),
    bytes_per_pixel: u64,
) -> Result<(), InputError> {
    check_size(path, size, MAX_PICTURE_PIXELS)?;
    let meta = file.get_ref().metadata();
    let bytes = meta.map_err(|source| InputError::io("reading", path, source))?.len();
    let pixel_bytes = u64::from(size.0) * u64::from(size.1) * bytes_per_pixel;
    let most_bytes = MAX_DECODER_BYTES.saturating_sub(pixel_bytes);
    if bytes > most_bytes {
        return Err(InputError::FileTooLarge { path: path.to_path_buf(), bytes, most_bytes });
    }
    Ok(())
}

/// Opens a picture's file, if it is no larger than any picture.
fn open(path: &Path) -> Result<BufReader<File>, InputError> {
    let reading = |source| InputError::io("reading", path, source);
    let file = File::open(path).map_err(reading)?;
    let bytes = file.metadata().map_err(reading)?.len();
    if bytes > MAX_PICTURE_BYTES {
        let path = path.to_path_buf();
        return Err(InputError::FileTooLarge { path, bytes, most_bytes: MAX_PICTURE_BYTES });
    }
    Ok(BufReader::new(file))
}

/// The width and height in the first chunk of a PNG.
pub(crate) fn png_size(path: &Path, file: &mut BufReader<File>) -> Result<(u32, u32), InputError> {
    let mut head = [0; 24];
    let reading = |source| InputError::io("reading", path, source);
    file.read_exact(&mut head).map_err(reading)?;
    file.rewind().map_err(reading)?;
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    Ok((number(16), number(20)))
}

pub(crate) fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits
}

/// What the reference's `convert("RGB")` gives.
fn into_rgb8(pixels: DynamicImage) -> RgbImage {
    let (width, height) = (pixels.width(), pixels.height());
    let rgb = match pixels {
        DynamicImage::ImageRgb8(rgb) => return rgb,
        DynamicImage::ImageLuma8(grey) => grey.iter().flat_map(|&level| [level; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|p| [p.0[0]; 3]).collect(),
        DynamicImage::ImageRgba8(rgba) => rgb_of_rgba(&rgba),
        DynamicImage::ImageLuma16(grey) => {
            grey.iter().flat_map(|&level| [upper_byte(level); 3]).collect()
        }
        DynamicImage::ImageLumaA16(grey) => {
            grey.pixels().flat_map(|p| [upper_byte(p.0[0]); 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|&level| upper_byte(level)).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            rgba.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(upper_byte)).collect()
        }
        // None of our three forms holds floating point.
        other => return other.into_rgb8(),
    };
    RgbImage::from_raw(width, height, rgb).unwrap_or_default()
}

/// Colours without their transparency, which the reference drops.
pub(crate) fn rgb_of_rgba(rgba: &RgbaImage) -> Vec<u8> {
    rgba.pixels().flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]]).collect()
}

fn upper_byte(level: u16) -> u8 {
    (level >> 8) as u8
}

/// Sorts what a decoder says of a picture.
pub(crate) fn refused(path: &Path, error: &ImageError) -> InputError {
    match error {
        ImageError::IoError(source) => match source.kind() {
            ErrorKind::UnexpectedEof => InputError::damaged(path, "it ends too early"),
            kind => InputError::io("reading", path, io::Error::new(kind, source.to_string())),
        },
        ImageError::Unsupported(what) => InputError::Unsupported {
            path: path.to_path_buf(),
            reason: format!("{what}. Save it as an ordinary PNG"),
        },
        other => InputError::damaged(path, other.to_string()),
    }
}
