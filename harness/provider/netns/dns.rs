//! One question to a DNS server from inside a namespace: the last thing that becomes ready in a cluster, since it
//! needs kube-proxy (to reach the service), CoreDNS and its watch of the API server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::namespace;

/// How long one question may take: an answer comes from the same machine.
const PATIENCE: Duration = Duration::from_millis(250);

/// Asks `server` for the IPv4 address of `name` from inside a namespace. `Ok(None)`: no such name, or no address.
///
/// # Errors
/// When there is no answer, with what the operating system said.
pub fn ask(namespace: &str, server: Ipv4Addr, name: &str) -> std::io::Result<Option<Ipv4Addr>> {
    let query = question(name);
    let answer = namespace::enter(namespace, move || -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(SocketAddr::from((server, 53)))?;
        socket.send(&query)?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    });
    Ok(first_address(&answer.map_err(std::io::Error::other)??))
}

/// RFC 1035, section 4.1: one question of type A, class IN, recursion desired.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x4d, 0x50, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// The address in an answer to [`question`]: the last four bytes of its first record, which is of type A when its
/// length says four.
fn first_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let (no_error, answers) = (answer.get(3)? & 0x0f == 0, u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]));
    if !no_error || answers == 0 {
        return None;
    }
    let question_end = 12 + answer.get(12..)?.iter().position(|b| *b == 0)? + 5;
    let name_end = skip_name(answer, question_end)?;
    let record = answer.get(name_end..name_end + 14)?;
    let (kind, length) = (&record[..2], &record[8..10]);
    (kind == [0, 1] && length == [0, 4]).then(|| Ipv4Addr::new(record[10], record[11], record[12], record[13]))
}

/// Where a record's name ends: labels, or a pointer to them (RFC 1035, section 4.1.4).
fn skip_name(answer: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *answer.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_and_its_answers() {
        let query = question("a.bc.");
        assert_eq!(&query[12..], b"\x01a\x02bc\x00\x00\x01\x00\x01");
        let mut answer = query.clone();
        (answer[2], answer[3], answer[7]) = (0x85, 0x80, 1);
        let pointer = [&answer[..], &[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 11, 0, 1]].concat();
        assert_eq!(first_address(&pointer), Some(Ipv4Addr::new(10, 11, 0, 1)));
        let spelled_out = [&answer[..], b"\x01a\x02bc\x00", &[0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 11, 0, 1]].concat();
        assert_eq!(first_address(&spelled_out), Some(Ipv4Addr::new(10, 11, 0, 1)));
        answer[3] = 0x83;
        assert_eq!(first_address(&answer), None, "no such name");
        assert_eq!(first_address(&[0; 5]), None, "cut off");
    }
}
