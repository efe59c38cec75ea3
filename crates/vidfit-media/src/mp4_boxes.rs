//! The boxes of an MP4 file with one video track (ISO/IEC 14496-12, -14 and -15).
//!
//! Own boxes rather than a crate's, for three things: a time scale in which every frame rate is
//! exact, colours declared in the container too, and frames that never have to be in memory at
//! once.

use crate::Fps;

/// What the boxes say about the one track.
pub(crate) struct VideoTrack {
    /// Size in pixels.
    pub(crate) width: u16,
    pub(crate) height: u16,
    pub(crate) fps: Fps,
    /// H.264 parameter sets, without start codes.
    pub(crate) sps: Vec<u8>,
    pub(crate) pps: Vec<u8>,
    /// Size in bytes of each frame, in the order of showing.
    pub(crate) frame_bytes: Vec<u32>,
    /// The frames at which decoding can start, counted from 1.
    pub(crate) key_frames: Vec<u32>,
}

impl VideoTrack {
    /// Everything that comes before the frames: `ftyp`, `moov`, and the start of `mdat`.
    pub(crate) fn head(&self) -> Vec<u8> {
        // The offset of the frames stands in the head itself, but does not change its length.
        let length = self.head_with_offset(0).len() as u64;
        self.head_with_offset(length)
    }

    fn head_with_offset(&self, offset: u64) -> Vec<u8> {
        let data_bytes = self.frame_bytes.iter().map(|&bytes| u64::from(bytes)).sum::<u64>();
        // Leaves ample room for the head below the 4 GB that 32-bit offsets reach.
        let is_large = data_bytes > 4_000_000_000;
        let mut out = Vec::new();
        put_box(&mut out, b"ftyp", |out| {
            out.extend(b"isom");
            put_u32(out, 0x200);
            out.extend(b"isomiso2avc1mp41");
        });
        put_box(&mut out, b"moov", |out| {
            self.put_mvhd(out);
            put_box(out, b"trak", |out| {
                self.put_tkhd(out);
                put_box(out, b"mdia", |out| {
                    self.put_mdhd(out);
                    put_full_box(out, b"hdlr", 0, |out| {
                        put_u32(out, 0);
                        out.extend(b"vide");
                        out.extend([0; 12]);
                        out.extend(b"video\0");
                    });
                    put_box(out, b"minf", |out| {
                        put_full_box(out, b"vmhd", 1, |out| out.extend([0; 8]));
                        put_box(out, b"dinf", |out| {
                            put_full_box(out, b"dref", 0, |out| {
                                put_u32(out, 1);
                                put_full_box(out, b"url ", 1, |_| {}); // in this file
                            });
                        });
                        self.put_stbl(out, offset, is_large);
                    });
                });
            });
        });
        if is_large {
            put_u32(&mut out, 1);
            out.extend(b"mdat");
            put_u64(&mut out, data_bytes + 16);
        } else {
            put_u32(&mut out, data_bytes as u32 + 8);
            out.extend(b"mdat");
        }
        out
    }

    /// Ticks per second and ticks per frame. Players time seeks in ticks, so there are at least
    /// 10 000 of them in a second, as in ffmpeg's files.
    fn ticks(&self) -> (u32, u32) {
        let (mut per_second, mut per_frame) = (self.fps.frames(), self.fps.seconds());
        while per_second < 10_000 && per_frame <= u32::MAX / 2 {
            per_second *= 2;
            per_frame *= 2;
        }
        (per_second, per_frame)
    }

    fn frames(&self) -> u32 {
        self.frame_bytes.len() as u32
    }

    fn duration_ticks(&self) -> u64 {
        u64::from(self.frames()) * u64::from(self.ticks().1)
    }

    fn put_mvhd(&self, out: &mut Vec<u8>) {
        // Version 1: 64-bit times. Dates are 0, so that the same frames make the same file.
        put_full_box(out, b"mvhd", 1 << 24, |out| {
            out.extend([0; 16]);
            put_u32(out, self.ticks().0);
            put_u64(out, self.duration_ticks());
            put_u32(out, 0x1_0000); // normal speed
            put_u16(out, 0x100); // full volume
            out.extend([0; 10]);
            put_unity_matrix(out);
            out.extend([0; 24]);
            put_u32(out, 2); // the next free track number
        });
    }

    fn put_tkhd(&self, out: &mut Vec<u8>) {
        const ENABLED_IN_MOVIE_AND_PREVIEW: u32 = 7;
        put_full_box(out, b"tkhd", 1 << 24 | ENABLED_IN_MOVIE_AND_PREVIEW, |out| {
            out.extend([0; 16]);
            put_u32(out, 1); // track number
            put_u32(out, 0);
            put_u64(out, self.duration_ticks());
            out.extend([0; 16]); // reserved, layer, group, volume, reserved
            put_unity_matrix(out);
            put_u32(out, u32::from(self.width) << 16);
            put_u32(out, u32::from(self.height) << 16);
        });
    }

    fn put_mdhd(&self, out: &mut Vec<u8>) {
        put_full_box(out, b"mdhd", 1 << 24, |out| {
            out.extend([0; 16]);
            put_u32(out, self.ticks().0);
            put_u64(out, self.duration_ticks());
            put_u16(out, 0x55c4); // language "und"
            put_u16(out, 0);
        });
    }

    /// The sample tables. All frames lie in one chunk.
    fn put_stbl(&self, out: &mut Vec<u8>, offset: u64, is_large: bool) {
        put_box(out, b"stbl", |out| {
            put_full_box(out, b"stsd", 0, |out| {
                put_u32(out, 1);
                self.put_avc1(out);
            });
            put_full_box(out, b"stts", 0, |out| {
                put_u32(out, 1);
                put_u32(out, self.frames());
                put_u32(out, self.ticks().1);
            });
            put_full_box(out, b"stss", 0, |out| {
                put_u32(out, self.key_frames.len() as u32);
                self.key_frames.iter().for_each(|&frame| put_u32(out, frame));
            });
            put_full_box(out, b"stsc", 0, |out| {
                put_u32(out, 1);
                put_u32(out, 1); // from the first chunk on
                put_u32(out, self.frames());
                put_u32(out, 1); // with the first description
            });
            put_full_box(out, b"stsz", 0, |out| {
                put_u32(out, 0);
                put_u32(out, self.frames());
                self.frame_bytes.iter().for_each(|&bytes| put_u32(out, bytes));
            });
            if is_large {
                put_full_box(out, b"co64", 0, |out| {
                    put_u32(out, 1);
                    put_u64(out, offset);
                });
            } else {
                put_full_box(out, b"stco", 0, |out| {
                    put_u32(out, 1);
                    put_u32(out, offset as u32);
                });
            }
        });
    }

    fn put_avc1(&self, out: &mut Vec<u8>) {
        put_box(out, b"avc1", |out| {
            out.extend([0; 6]);
            put_u16(out, 1); // data reference
            out.extend([0; 16]);
            put_u16(out, self.width);
            put_u16(out, self.height);
            put_u32(out, 72 << 16); // dots per inch, by custom
            put_u32(out, 72 << 16);
            put_u32(out, 0);
            put_u16(out, 1); // frames per sample
            out.extend([0; 32]); // name of the compressor
            put_u16(out, 24); // colour without alpha
            put_u16(out, 0xffff);
            self.put_avcc(out);
            put_box(out, b"colr", |out| {
                // BT.601 primaries, transfer and matrix, limited range: as in `colour`.
                out.extend(b"nclx");
                [6, 6, 6].into_iter().for_each(|code| put_u16(out, code));
                out.push(0);
            });
            put_box(out, b"pasp", |out| {
                put_u32(out, 1); // square pixels
                put_u32(out, 1);
            });
        });
    }

    fn put_avcc(&self, out: &mut Vec<u8>) {
        put_box(out, b"avcC", |out| {
            out.push(1);
            out.extend(&self.sps[1..4]); // profile, compatibility, level
            out.push(0xff); // lengths of NAL units take 4 bytes
            out.push(0xe0 | 1); // one SPS
            put_u16(out, self.sps.len() as u16);
            out.extend(&self.sps);
            out.push(1); // one PPS
            put_u16(out, self.pps.len() as u16);
            out.extend(&self.pps);
            if matches!(self.sps[1], 100 | 110 | 122 | 144) {
                // High profiles: 4:2:0, 8 bits for luma and chroma, no SPS extension.
                out.extend([0xfc | 1, 0xf8, 0xf8, 0]);
            }
        });
    }
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes());
}

fn put_box(out: &mut Vec<u8>, name: &[u8; 4], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put_u32(out, 0);
    out.extend(name);
    fill(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A box that begins with a version (the top byte) and flags.
fn put_full_box(
    out: &mut Vec<u8>,
    name: &[u8; 4],
    version_and_flags: u32,
    fill: impl FnOnce(&mut Vec<u8>),
) {
    put_box(out, name, |out| {
        put_u32(out, version_and_flags);
        fill(out);
    });
}

fn put_unity_matrix(out: &mut Vec<u8>) {
    for value in [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000] {
        put_u32(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(fps: Fps, frame_bytes: Vec<u32>) -> VideoTrack {
        VideoTrack {
            width: 720,
            height: 480,
            fps,
            sps: vec![0x67, 66, 0, 30],
            pps: vec![0x68, 1],
            frame_bytes,
            key_frames: vec![1],
        }
    }

    fn find(head: &[u8], name: &[u8; 4]) -> Option<usize> {
        head.windows(4).position(|window| window == name)
    }

    #[test]
    fn ticks_keep_the_rate_exact() {
        for (frames, seconds) in [(8, 1), (7, 1), (30000, 1001), (1, 10), (73, 10)] {
            let fps = Fps::from_fraction(frames, seconds).unwrap();
            let (per_second, per_frame) = track(fps, vec![1]).ticks();
            assert!(per_second >= 10_000);
            assert_eq!(
                u64::from(per_second) * u64::from(seconds),
                u64::from(per_frame) * u64::from(frames)
            );
        }
    }

    #[test]
    fn files_beyond_4_gb_use_wide_offsets() {
        let fps = Fps::new(8.0).unwrap();
        let small = track(fps, vec![100, 200]).head();
        assert!(find(&small, b"stco").is_some() && find(&small, b"co64").is_none());
        assert_eq!(small[small.len() - 8..], [0, 0, 1, 52, b'm', b'd', b'a', b't']);

        let large = track(fps, vec![u32::MAX, 200]).head();
        let co64 = find(&large, b"co64").unwrap();
        let offset = u64::from_be_bytes(large[co64 + 12..co64 + 20].try_into().unwrap());
        assert_eq!(offset, large.len() as u64);
        let length = u64::from_be_bytes(large[large.len() - 8..].try_into().unwrap());
        assert_eq!(length, u64::from(u32::MAX) + 200 + 16);
    }
}
