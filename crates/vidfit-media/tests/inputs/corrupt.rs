//! What is broken, or pretends, gets one clear error: what it is, which file, what to do.

use std::fs;
use std::path::{Path, PathBuf};

use vidfit_media::{VideoSource, read_picture};

use crate::samples::{fixture, png_chunk, png_head, write_clip};

#[derive(Clone, Copy, PartialEq)]
enum As {
    Picture,
    Video,
}

/// The error of reading `path`, which must name the file.
fn error(path: &Path, wanted: As) -> String {
    let result = match wanted {
        As::Picture => read_picture(path).map(|_| ()),
        As::Video => VideoSource::open(path).and_then(|source| {
            let all: Vec<usize> = (0..source.frames()).collect();
            source.read(&all, 16, 16, Default::default()).map(|_| ())
        }),
    };
    let error = match result {
        Err(error) => error.to_string(),
        Ok(()) => panic!("{} was read", path.display()),
    };
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.contains(name), "does not name {name}: {error}");
    assert!(!error.contains('\n') && error.len() < 400, "not one clear sentence: {error}");
    error
}

fn tiny_png(width: u32, height: u32) -> Vec<u8> {
    // Filter byte and black, in one stored block of zlib.
    let rows = vec![0u8; (height * (3 * width + 1)) as usize];
    let length = rows.len() as u16;
    let mut stored = vec![0x78, 0x01, 1];
    stored.extend(length.to_le_bytes());
    stored.extend((!length).to_le_bytes());
    stored.extend(&rows);
    let high = rows.len() as u32;
    stored.extend((high << 16 | 1).to_be_bytes());
    [png_head(width, height), png_chunk(b"IDAT", &stored), png_chunk(b"IEND", &[])].concat()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn make(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }
}

#[test]
fn each_gets_one_clear_error() {
    let folder = Folder::new();
    let png = fs::read(fixture("samples/rgb.png")).unwrap();
    let jpeg = fs::read(fixture("samples/photo.jpg")).unwrap();
    let webp = fs::read(fixture("samples/lossless.webp")).unwrap();
    let clip = folder.0.path().join("clip.gif");
    write_clip(&clip, 32, 24, 3, 8.0);
    let gif = fs::read(&clip).unwrap();
    // A header, no colours, and the end.
    let no_frames = [&b"GIF89a"[..], &[32, 0, 24, 0, 0, 0, 0, b';']].concat();
    let text = b"This is no video, but a letter.\n";
    let bomb = [png_head(12_000, 12_000), png_chunk(b"IDAT", &[0; 9])].concat();
    let nonsense: Vec<u8> = (0..999u32).map(|i| (i * i * 31 % 251) as u8).collect();

    use As::{Picture, Video};
    let cases: Vec<(PathBuf, As, &[&str])> = vec![
        (folder.0.path().join("missing.png"), Picture, &["there is no"]),
        (folder.0.path().join("missing.mp4"), Video, &["there is no"]),
        (folder.write("empty.png", b""), Picture, &["empty", "download it again"]),
        (folder.write("empty.mp4", b""), Video, &["empty", "download it again"]),
        (folder.write("letter.mp4", text), Video, &["text", "not a video", "MP4"]),
        (folder.write("letter.png", text), Picture, &["text", "not a picture", "PNG"]),
        (folder.write("cut.png", &png[..png.len() / 2]), Picture, &["damaged"]),
        (folder.write("headless.png", &png[..20]), Picture, &["damaged", "too early"]),
        (folder.write("endless.png", &png[..png.len() - 12]), Picture, &["damaged", "breaks off"]),
        (folder.write("cut.jpg", &jpeg[..jpeg.len() - 90]), Picture, &["damaged", "breaks off"]),
        (folder.write("cut.webp", &webp[..webp.len() - 20]), Picture, &["damaged", "the end"]),
        (folder.write("dot.png", &tiny_png(1, 1)), Picture, &["only 1x1", "16 a side"]),
        (folder.write("thin.png", &tiny_png(100, 8)), Picture, &["only 100x8", "16 a side"]),
        (
            folder.write("huge.png", &png_head(100_000, 100_000)),
            Picture,
            &["100000x100000", "too large", "16384 pixels a side"],
        ),
        (folder.write("bomb.png", &bomb), Picture, &["12000x12000", "100 million pixels"]),
        (folder.make("x.png"), Picture, &["is a folder", "--video"]),
        (folder.make("frames"), Video, &["holds no picture"]),
        (clip.clone(), Picture, &["is a video (GIF)", "--video"]),
        (folder.write("still.mp4", &png), Video, &["single picture (PNG)", "--image"]),
        (folder.write("still.gif", &jpeg), Video, &["single picture (JPEG)", "--image"]),
        (folder.write("none.gif", &no_frames), Video, &["without frames"]),
        (folder.write("cut.gif", &gif[..gif.len() / 2]), Video, &["damaged"]),
        (folder.write("nonsense.png", &nonsense), Picture, &["not a picture"]),
        (folder.write("nonsense.mp4", &nonsense), Video, &["ffmpeg"]),
    ];
    for (path, wanted, words) in cases {
        let error = error(&path, wanted);
        println!("{error}");
        for word in words {
            assert!(error.contains(word), "no '{word}' in: {error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let folder = Folder::new();
    let pipe = folder.0.path().join("pipe.mp4");
    if !std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|s| s.success()) {
        println!("skipped: there is no mkfifo here");
        return;
    }
    for wanted in [As::Picture, As::Video] {
        assert!(error(&pipe, wanted).contains("device or a pipe"));
    }
}

/// Run by the test below in a process that finds no programs.
#[test]
#[ignore = "needs the empty PATH that without_ffmpeg_it_is_named sets"]
fn read_without_ffmpeg() {
    let Some(path) = std::env::var_os("VIDFIT_MEDIA_NO_FFMPEG") else {
        return;
    };
    let error = VideoSource::open(Path::new(&path)).unwrap_err();
    assert!(matches!(error, vidfit_media::InputError::NeedsFfmpeg { .. }), "{error}");
    assert!(error.to_string().contains("Install ffmpeg"), "{error}");
}

#[test]
fn without_ffmpeg_it_is_named() {
    let folder = Folder::new();
    // The first bytes of a Matroska file.
    let path = folder.write("a.mkv", &[0x1a, 0x45, 0xdf, 0xa3, 0x9f, 0x42, 0x86, 0x81]);
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "corrupt::read_without_ffmpeg"])
        .env("VIDFIT_MEDIA_NO_FFMPEG", &path)
        .env("PATH", folder.0.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[cfg(feature = "h264")]
mod mp4 {
    use super::*;

    fn find(bytes: &[u8], name: &[u8; 4]) -> usize {
        bytes.windows(4).position(|window| window == name).unwrap()
    }

    fn clip(folder: &Folder) -> Vec<u8> {
        let path = folder.0.path().join("clip.mp4");
        write_clip(&path, 64, 48, 9, 8.0);
        fs::read(path).unwrap()
    }

    #[test]
    fn wherever_it_is_cut_it_is_damaged() {
        let folder = Folder::new();
        let bytes = clip(&folder);
        let frames_at = find(&bytes, b"mdat") + 4;
        let cuts = (9..frames_at).step_by(13).chain((frames_at..bytes.len()).step_by(101));
        for kept in cuts.chain([bytes.len() - 1]) {
            let error = error(&folder.write("cut.mp4", &bytes[..kept]), As::Video);
            assert!(error.contains("damaged"), "{kept}: {error}");
            assert!(error.contains("no index") || error.contains("the file"), "{kept}: {error}");
        }
    }

    #[test]
    fn a_hole_in_the_frames_is_damage_not_garbage() {
        let folder = Folder::new();
        let mut bytes = clip(&folder);
        let frames_at = find(&bytes, b"mdat") + 4;
        let middle = (frames_at + bytes.len()) / 2;
        bytes[middle..middle + 200].fill(0);
        let error = error(&folder.write("hole.mp4", &bytes), As::Video);
        assert!(error.contains("damaged") && error.contains("frame"), "{error}");
    }

    #[test]
    fn an_index_that_lies_is_found_out() {
        let folder = Folder::new();
        let bytes = clip(&folder);
        // Where in a part, counted from its name, which four bytes are put, and what is said.
        let cases: [(&[u8; 4], usize, u32, &str); 11] = [
            (b"stsz", 12, 0, "without frames"),
            (b"stsz", 12, u32::MAX, "index"),
            (b"stsz", 16, u32::MAX, "frame 0"),
            (b"stsz", 8, 1 << 30, "frame 0"),
            (b"stco", 12, u32::MAX, "beyond the end"),
            (b"stco", 8, u32::MAX, "index"),
            (b"stsc", 12, 7, "index"),
            (b"stts", 8, 0, "index"),
            (b"mdhd", 24, 0, "clock"),
            (b"moov", 4, 0xffff, "index"),
            (b"hdlr", 12, u32::from_be_bytes(*b"soun"), "without frames"),
        ];
        for (name, at, value, word) in cases {
            let mut lying = bytes.clone();
            let at = find(&bytes, name) + at;
            lying[at..at + 4].copy_from_slice(&value.to_be_bytes());
            let error = error(&folder.write("lying.mp4", &lying), As::Video);
            assert!(error.contains(word), "{} {at}: {error}", name.escape_ascii());
        }
    }

    #[test]
    fn a_single_frame_of_a_huge_video_is_not_decoded() {
        let folder = Folder::new();
        let mut bytes = clip(&folder);
        let at = find(&bytes, b"avcC");
        let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap());
        // A size of 16400 pixels in the parameters: width and height as Exp-Golomb codes.
        let huge_sps = sps(1025, 1025);
        let sps_at = at + 4 + 8;
        let own = usize::from(u16::from_be_bytes([bytes[sps_at - 2], bytes[sps_at - 1]]));
        assert!(huge_sps.len() <= own && own < length as usize, "{} {own}", huge_sps.len());
        bytes[sps_at..sps_at + huge_sps.len()].copy_from_slice(&huge_sps);
        let error = error(&folder.write("huge.mp4", &bytes), As::Video);
        assert!(error.contains("16400x16400") && error.contains("too large"), "{error}");
    }

    /// ue(v) in ones and zeros.
    fn golomb(value: u32) -> String {
        let binary = format!("{:b}", value + 1);
        "0".repeat(binary.len() - 1) + &binary
    }

    /// The parameters of a baseline stream of that many macroblocks.
    fn sps(columns: u32, rows: u32) -> Vec<u8> {
        // Its number, frame_num of 4 bits, order of type 2, one reference; no gaps; the sides;
        // frames, direct 8x8, neither crop nor usability, and the bit that ends it.
        let mut bits = [0, 0, 2, 1].map(golomb).concat();
        bits += "0";
        bits += &golomb(columns - 1);
        bits += &golomb(rows - 1);
        bits += "11001";
        bits += &"0".repeat(bits.len().next_multiple_of(8) - bits.len());
        let bytes = bits.as_bytes().chunks(8);
        let bytes = bytes.map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0')));
        [0x67, 66, 0, 40].into_iter().chain(bytes).collect()
    }
}
