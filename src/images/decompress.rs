//! Day 12: a layer as it was before it was compressed.

use std::io::{self, BufRead, BufReader, Error, Read};

use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::BlockDecodingStrategy;
use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

use crate::error::Result;
use crate::images::digest::{Digest, Hasher};

/// How much is read at once, in bytes: enough that the number of system calls does not count.
pub const BUFFER: usize = 256 << 10;

/// What is in `from`, without its compression, which its first bytes tell: a media type may say
/// something else. (RFC 1952, 2.3.1; RFC 8878, 3.1)
pub fn decompress(from: impl Read + 'static) -> Result<Box<dyn Read>> {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let begin = from.fill_buf().context("read the layer")?;
    Ok(match begin {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(from)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd::new(from)),
        _ => Box::new(from),
    })
}

/// One zstd frame after the other, and what is to be skipped between them.
struct Zstd<R> {
    from: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(from: R) -> Zstd<R> {
        Zstd { from, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame. Returns whether there is one.
    fn next_frame(&mut self) -> io::Result<bool> {
        use FrameDecoderError::ReadFrameHeaderError as NoHeader;
        while !self.from.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.from) {
                Ok(()) => return Ok(true),
                Err(NoHeader(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.from).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.in_frame {
                while self.decoder.can_collect() < into.len() && !self.decoder.is_finished() {
                    let some = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.from, some).map_err(Error::other)?;
                    if self.decoder.can_collect() > 0 {
                        break;
                    }
                }
                let count = self.decoder.read(into)?;
                if count > 0 {
                    return Ok(count);
                }
                self.in_frame = !self.decoder.is_finished();
            } else if !self.next_frame()? {
                return Ok(0);
            } else {
                self.in_frame = true;
            }
        }
    }
}

/// Takes the digest of all that is read through it.
pub struct Hashed<R> {
    from: R,
    hasher: Hasher,
}

impl<R: Read> Hashed<R> {
    /// Of what is read from `from`.
    pub fn new(from: R) -> Hashed<R> {
        Hashed { from, hasher: Hasher::new() }
    }

    /// The digest of what was read.
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        self.hasher.update(&into[..count]);
        Ok(count)
    }
}
