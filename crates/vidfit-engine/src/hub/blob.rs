//! Downloading one blob: locked, resumed, checked, and only then given its name.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::cache::{RepoCache, create_parent, file_bytes, try_lock};
use super::checksum::RunningChecksum;
use super::http::{Asked, Client, header, passing};
use super::listing::RemoteBlob;
use super::meter::Meter;
use super::retry::{Failure, Patience, check_cancelled, sleep};
use super::{HubConfig, HubError, PullEvent};

const BUFFER_BYTES: usize = 256 << 10;

/// How often a lock that another process holds is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);

/// How often contents may arrive damaged before it is an error.
const MAX_DAMAGED: u32 = 2;

/// A file to be downloaded.
pub(super) struct WantedFile<'a> {
    /// The name in the repository.
    pub name: &'a str,
    pub url: String,
    pub blob: &'a RemoteBlob,
}

/// Makes sure that the blob of a file is in the cache, downloading what is missing of it.
pub(super) fn fetch_blob(
    wanted: &WantedFile<'_>,
    cache: &RepoCache,
    client: &Client<'_>,
    config: &HubConfig,
    cancel: &AtomicBool,
    meter: &mut Meter<'_>,
) -> Result<(), HubError> {
    meter.begin_file(wanted.name);
    let lock = cache.open_lock(&wanted.blob.name)?;
    let mut told = false;
    while !try_lock(&lock) {
        if !told {
            meter.event(PullEvent::Waiting { file: wanted.name.to_owned() });
            told = true;
        }
        sleep(LOCK_INTERVAL, cancel)?;
    }
    let complete = cache.blob(&wanted.blob.name);
    if file_bytes(&complete) != Some(wanted.blob.bytes) {
        let partial_path = cache.incomplete(&wanted.blob.name);
        let mut partial = Partial::open(&partial_path, wanted.blob, cancel)?;
        partial.complete(wanted, client, config, cancel, meter)?;
        partial.file.sync_all().map_err(HubError::io("write", &partial_path))?;
        // Windows cannot rename an open file.
        drop(partial);
        fs::rename(&partial_path, &complete).map_err(HubError::io("rename", &partial_path))?;
    }
    meter.end_file(wanted.blob.bytes);
    Ok(())
}

/// The part of a blob that has arrived, and its checksum so far.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    blob: &'a RemoteBlob,
    bytes: u64,
    checksum: RunningChecksum,
}

impl<'a> Partial<'a> {
    /// Opens what an earlier run left, or begins.
    fn open(path: &'a Path, blob: &'a RemoteBlob, cancel: &AtomicBool) -> Result<Self, HubError> {
        create_parent(path)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(HubError::io("create", path))?;
        let checksum = RunningChecksum::new(blob.checksum(), blob.bytes);
        let mut partial = Self { path, file, blob, bytes: 0, checksum };
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            check_cancelled(cancel)?;
            let count = partial.file.read(&mut buffer).map_err(HubError::io("read", path))?;
            if count == 0 {
                break;
            }
            partial.checksum.update(&buffer[..count]);
            partial.bytes += count as u64;
        }
        if partial.bytes > blob.bytes {
            partial.begin_anew()?;
        }
        Ok(partial)
    }

    fn begin_anew(&mut self) -> Result<(), HubError> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)).map(drop))
            .map_err(HubError::io("write", self.path))?;
        self.bytes = 0;
        self.checksum = RunningChecksum::new(self.blob.checksum(), self.blob.bytes);
        Ok(())
    }

    /// Downloads until everything is here and has the right checksum.
    fn complete(
        &mut self,
        wanted: &WantedFile<'_>,
        client: &Client<'_>,
        config: &HubConfig,
        cancel: &AtomicBool,
        meter: &mut Meter<'_>,
    ) -> Result<(), HubError> {
        let mut patience = Patience::new(config, cancel);
        let mut damaged = 0;
        loop {
            meter.set_file_bytes(self.bytes);
            while self.bytes < self.blob.bytes {
                check_cancelled(cancel)?;
                let before = self.bytes;
                let outcome = self.receive(&wanted.url, client, cancel, meter);
                if self.bytes > before {
                    patience.gained();
                }
                if let Err(failure) = outcome {
                    patience.wait(failure, meter)?;
                }
            }
            let Some(reason) = self.damage() else { return Ok(()) };
            self.begin_anew()?;
            damaged += 1;
            if damaged >= MAX_DAMAGED {
                let _ = fs::remove_file(self.path);
                return Err(HubError::Damaged { file: wanted.name.to_owned(), reason });
            }
            let reason = format!("{} arrived damaged: {reason}", wanted.name);
            meter.event(PullEvent::Retrying { reason, wait: Duration::ZERO });
        }
    }

    /// One request, until the blob is complete or the connection ends.
    fn receive(
        &mut self,
        url: &str,
        client: &Client<'_>,
        cancel: &AtomicBool,
        meter: &mut Meter<'_>,
    ) -> Result<(), Failure> {
        let answer = client.get(url, Asked::File, self.bytes)?;
        let start = match answer.response.status().as_u16() {
            206 => range_start(header(answer.response.headers(), "content-range")),
            200 => Some(0),
            _ => None,
        };
        if start != Some(self.bytes) {
            // The server ignores ranges, or will not give this one.
            self.begin_anew()?;
            meter.set_file_bytes(0);
            if start != Some(0) {
                return Err(passing(url, "it does not continue where asked".to_owned(), None));
            }
        }
        let mut body = answer.response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            check_cancelled(cancel)?;
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) => return Err(passing(url, error.to_string(), None)),
            };
            if count == 0 {
                break;
            }
            self.append(&buffer[..count])?;
            meter.received(count as u64);
            // More than that is damage, found when the checksum is compared.
            if self.bytes > self.blob.bytes {
                return Ok(());
            }
        }
        if self.bytes < self.blob.bytes {
            let reason =
                format!("the connection ended after {} of {} bytes", self.bytes, self.blob.bytes);
            return Err(passing(url, reason, None));
        }
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::io("write", self.path))?;
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// What is wrong with the contents, if anything.
    fn damage(&mut self) -> Option<String> {
        if self.bytes != self.blob.bytes {
            return Some(format!("more than the {} bytes it should have", self.blob.bytes));
        }
        let checksum = std::mem::replace(&mut self.checksum, RunningChecksum::Opaque);
        let found = checksum.finish()?;
        let expected = self.blob.name.to_ascii_lowercase();
        (found != expected).then(|| format!("its checksum is {found}, not {expected}"))
    }
}

/// The first byte of `bytes 5-9/10`.
fn range_start(content_range: Option<&str>) -> Option<u64> {
    content_range?.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
