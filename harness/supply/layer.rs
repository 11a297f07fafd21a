//! A layer of an image: a tar file, compressed with gzip or zstd, or not
//! (<https://github.com/opencontainers/image-spec/blob/main/layer.md>).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use tar::Archive;

/// Opens a layer, whatever its compression.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn open(layer: &Path) -> io::Result<Archive<Box<dyn Read>>> {
    let mut file = BufReader::new(File::open(layer)?);
    // Media types can be wrong; the first bytes cannot.
    let mut magic = [0; 4];
    let read = file.read(&mut magic)?;
    file.rewind()?;
    Ok(Archive::new(match &magic[..read] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        // A frame, or one that a decoder skips (RFC 8878, 3.1): `zstd:chunked` layers have both.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(Zstd::new(file)),
        _ => Box::new(file),
    }))
}

/// Reads all frames of a zstd file, one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether the decoder has begun a frame.
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame; `false`: there is none.
    fn next_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.in_frame {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    let some = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.source, some).map_err(io::Error::other)?;
                }
                let read = self.decoder.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
            }
            self.in_frame = self.next_frame()?;
            if !self.in_frame {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello from zstd\n' | zstd`, by Zstandard's own program.
    const FRAME: &[u8] = b"\x28\xb5\x2f\xfd\x04\x58\x81\x00\x00hello from zstd\n\x62\x5b\x69\x5a";

    fn decoded(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        Zstd::new(bytes).read_to_end(&mut all)?;
        Ok(all)
    }

    #[test]
    fn all_frames_are_read_and_others_skipped() {
        let skipped = b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc";
        let all = [skipped, FRAME, skipped, FRAME].concat();
        assert_eq!(decoded(&all).unwrap(), b"hello from zstd\nhello from zstd\n");
    }

    #[test]
    fn a_frame_that_is_cut_off_is_an_error() {
        assert!(decoded(&FRAME[..FRAME.len() - 8]).is_err());
    }
}
