//! SPDY/3.1 framing, as far as an API server uses it towards a kubelet: streams, data, resets, pings.
//!
//! No flow control: Kubernetes' own implementation (github.com/moby/spdystream) neither sends nor honours window updates.
//! Source: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>, and spdystream for what is left out there.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The text that both sides' header compression begins with (section 2.6.10.1).
const DICTIONARY: &[u8] = include_bytes!("spdy-dictionary.bin");

/// A header block may not unpack to more than this: the API server sends a few hundred bytes.
const HEADER_LIMIT: usize = 64 << 10;

/// A frame may not be longer than this; the API server's are at most 64 KiB.
const FRAME_LIMIT: usize = 1 << 20;

const VERSION: u16 = 3;
const FIN: u8 = 1;

/// Names (lower case) and values.
pub type Headers = BTreeMap<String, String>;

/// What the client sends that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// It opens a stream.
    Open {
        /// The stream's number.
        stream: u32,
        /// What the stream is for.
        headers: Headers,
        /// It will send nothing on it.
        last: bool,
    },
    /// Bytes of a stream.
    Data {
        /// The stream's number.
        stream: u32,
        /// The bytes.
        data: Bytes,
        /// Its last frame.
        last: bool,
    },
    /// It gives a stream up, in both directions.
    Reset {
        /// The stream's number.
        stream: u32,
    },
    /// It expects the same number back.
    Ping {
        /// The number.
        id: u32,
    },
    /// Nothing that anything here depends on.
    Other,
}

/// Reads frames. The compression of headers continues from one frame to the next.
pub struct Decoder {
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true) }
    }
}

impl Decoder {
    /// The next frame; `None`: the connection has ended.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not SPDY/3.1.
    pub async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
        let mut head = [0; 8];
        match from.read_exact(&mut head).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        };
        let [a, b, c, d, flags, length @ ..] = head;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if length > FRAME_LIMIT {
            return Err(broken(format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).await?;
        let mut body = Bytes::from(body);
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return Ok(Some(Frame::Data { stream, data: body, last: flags & FIN != 0 }));
        }
        let (version, kind) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        if version != VERSION {
            return Err(broken(format!("version {version}")));
        }
        let needed = match kind {
            1 => 10,
            3 => 8,
            6 => 4,
            _ => 0,
        };
        if body.len() < needed {
            return Err(broken(format!("a frame of type {kind} with {length} bytes")));
        }
        Ok(Some(match kind {
            1 => {
                let stream = body.get_u32() & 0x7fff_ffff;
                body.advance(6); // associated stream, priority, slot
                Frame::Open { stream, headers: self.headers(&body)?, last: flags & FIN != 0 }
            }
            3 => Frame::Reset { stream: body.get_u32() & 0x7fff_ffff },
            6 => Frame::Ping { id: body.get_u32() },
            // A reply or further headers: unpacked all the same, as the next block depends on it.
            2 | 8 if body.len() >= 4 => {
                body.advance(4);
                self.headers(&body)?;
                Frame::Other
            }
            _ => Frame::Other,
        }))
    }

    /// Section 2.6.10: a count, then names and values, each with its length.
    fn headers(&mut self, block: &[u8]) -> io::Result<Headers> {
        let mut plain = Bytes::from(self.unpack(block)?);
        let mut headers = Headers::new();
        for _ in 0..number(&mut plain)? {
            let (name, value) = (text(&mut plain)?, text(&mut plain)?);
            headers.insert(name.to_lowercase(), value);
        }
        Ok(headers)
    }

    fn unpack(&mut self, mut block: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let before = (self.inflate.total_in(), plain.len());
            let result = self.inflate.decompress_vec(block, &mut plain, FlushDecompress::Sync);
            block = &block[usize::try_from(self.inflate.total_in() - before.0).unwrap_or(0)..];
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate.set_dictionary(DICTIONARY).map_err(|e| broken(e.to_string()))?;
                }
                Err(error) => return Err(broken(format!("headers: {error}"))),
                Ok(_) if block.is_empty() && plain.len() < plain.capacity() => return Ok(plain),
                Ok(_) if plain.len() > HEADER_LIMIT => return Err(broken("headers are too long".into())),
                Ok(_) if plain.len() == before.1 && plain.len() < plain.capacity() => {
                    return Err(broken("headers are incomplete".into()));
                }
                Ok(_) => plain.reserve(1024),
            }
        }
    }
}

fn number(plain: &mut Bytes) -> io::Result<u32> {
    plain.try_get_u32().map_err(|_| broken("headers are cut off".into()))
}

fn text(plain: &mut Bytes) -> io::Result<String> {
    let length = number(plain)? as usize;
    if length > plain.len() {
        return Err(broken("headers are cut off".into()));
    }
    Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
}

fn broken(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not SPDY/3.1: {what}"))
}

/// Writes frames.
pub struct Encoder {
    deflate: Compress,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { deflate: Compress::new(Compression::fast(), true) }
    }
}

impl Encoder {
    /// The answer to an opened stream: it exists.
    ///
    /// # Errors
    /// When its headers cannot be packed.
    pub fn reply(&mut self, stream: u32, to: &mut BytesMut) -> io::Result<()> {
        let block = self.pack(&Headers::new())?;
        control(2, 0, 4 + block.len(), to);
        to.put_u32(stream);
        to.put_slice(&block);
        Ok(())
    }

    /// Opens a stream: what a client does.
    #[cfg(test)]
    pub fn open(&mut self, stream: u32, headers: &Headers, to: &mut BytesMut) -> io::Result<()> {
        let block = self.pack(headers)?;
        control(1, 0, 10 + block.len(), to);
        to.put_u32(stream);
        to.put_slice(&[0; 6]);
        to.put_slice(&block);
        Ok(())
    }

    fn pack(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        if self.deflate.total_in() == 0 {
            self.deflate.set_dictionary(DICTIONARY).map_err(|e| broken(e.to_string()))?;
        }
        let mut block = Vec::with_capacity(plain.len() + 256);
        self.deflate
            .compress_vec(&plain, &mut block, FlushCompress::Sync)
            .map_err(|e| broken(format!("headers: {e}")))?;
        Ok(block)
    }
}

/// Bytes of a stream; `last`: nothing more comes on it.
pub fn data(stream: u32, data: &[u8], last: bool, to: &mut BytesMut) {
    to.put_u32(stream & 0x7fff_ffff);
    to.put_u32((u32::from(if last { FIN } else { 0 }) << 24) | (data.len() as u32 & 0x00ff_ffff));
    to.put_slice(data);
}

/// The answer to a ping.
pub fn ping(id: u32, to: &mut BytesMut) {
    control(6, 0, 4, to);
    to.put_u32(id);
}

fn control(kind: u16, flags: u8, length: usize, to: &mut BytesMut) {
    to.put_u16(0x8000 | VERSION);
    to.put_u16(kind);
    to.put_u32((u32::from(flags) << 24) | (length as u32 & 0x00ff_ffff));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn decode(bytes: &[u8]) -> io::Result<Vec<Frame>> {
        let (mut decoder, mut from, mut frames) = (Decoder::default(), bytes, Vec::new());
        while let Some(frame) = decoder.read(&mut from).await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// What spdystream v0.5.1 writes for two streams with the headers of an exec: written down from its own output.
    #[tokio::test]
    async fn streams_that_kubernetes_own_client_opens() {
        let frames = decode(include_bytes!("testdata/spdystream-exec.bin")).await.unwrap();
        let kinds: Vec<(u32, String)> = frames
            .iter()
            .filter_map(|frame| match frame {
                Frame::Open { stream, headers, .. } => Some((*stream, headers["streamtype"].clone())),
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [(1, "error".to_owned()), (3, "stdin".into()), (5, "stdout".into())]);
        assert!(frames.contains(&Frame::Data { stream: 3, data: Bytes::from_static(b"hello"), last: false }));
        assert!(frames.contains(&Frame::Data { stream: 3, data: Bytes::new(), last: true }), "{frames:?}");
        assert!(frames.iter().any(|f| matches!(f, Frame::Ping { .. })), "{frames:?}");
    }

    #[tokio::test]
    async fn what_is_not_spdy_is_refused() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "a frame of"),
            (&[0x80, 2, 0, 1, 0, 0, 0, 0], "version 2"),
            (&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], "a frame of type 1 with 4 bytes"),
            (&[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9], "headers"),
        ] {
            let error = decode(bytes).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            all in prop::collection::vec((prop::collection::btree_map("[a-z]{1,20}", "[ -~]{0,300}", 0..6), prop::collection::vec(any::<u8>(), 0..2000)), 1..5)
        ) {
            let (mut encoder, mut bytes, mut expected) = (Encoder::default(), BytesMut::new(), Vec::new());
            for (index, (headers, content)) in all.into_iter().enumerate() {
                let stream = index as u32 * 2 + 1;
                encoder.open(stream, &headers, &mut bytes).unwrap();
                data(stream, &content, true, &mut bytes);
                ping(stream, &mut bytes);
                encoder.reply(stream, &mut bytes).unwrap();
                expected.push(Frame::Open { stream, headers, last: false });
                expected.push(Frame::Data { stream, data: content.into(), last: true });
                expected.push(Frame::Ping { id: stream });
                expected.push(Frame::Other);
            }
            prop_assert_eq!(runtime().block_on(decode(&bytes)).unwrap(), expected);
        }

        #[test]
        fn nothing_that_comes_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = runtime().block_on(decode(&bytes));
            let _ = runtime().block_on(decode(&[&[0x80, 3, 0, 1, 0, 0, 0, bytes.len() as u8][..], &bytes].concat()));
        }
    }
}
