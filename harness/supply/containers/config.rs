//! An image's configuration (<https://github.com/opencontainers/image-spec/blob/main/config.md>).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ContainerImage, ContainerImageError};

/// The variable that container engines set where an image sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    user: String,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: String,
}

/// Reads a configuration; the user's name is looked up in the image's own files.
pub(super) fn read(
    image: &str,
    text: &[u8],
    digest: String,
    layers: Vec<PathBuf>,
) -> Result<ContainerImage, ContainerImageError> {
    let malformed = |why: String| ContainerImageError::Malformed { image: image.to_owned(), why };
    let document: Document = serde_json::from_slice(text).map_err(|e| malformed(format!("its configuration: {e}")))?;
    let Config { user, env, entrypoint, cmd, working_dir } = document.config;
    let file = |name: &str| layers.iter().rev().find_map(|layer| std::fs::read_to_string(layer.join(name)).ok());
    let (passwd, group) = (file("etc/passwd").unwrap_or_default(), file("etc/group").unwrap_or_default());
    let user = resolve(&user, &passwd, &group).map_err(malformed)?;
    let split = |pair: String| {
        let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
        (name.to_owned(), value.to_owned())
    };
    let mut env: Vec<(String, String)> = env.unwrap_or_default().into_iter().map(split).collect();
    for (name, value) in [("PATH", PATH.to_owned()), ("HOME", user.home)] {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value));
        }
    }
    Ok(ContainerImage {
        digest,
        layers,
        entrypoint: entrypoint.unwrap_or_default(),
        cmd: cmd.unwrap_or_default(),
        env,
        workdir: Some(working_dir).filter(|folder| Path::new(folder).is_absolute()),
        uid: user.uid,
        gid: user.gid,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
    home: String,
}

/// `user`, `uid`, `user:group`, …: names by passwd(5) and group(5). Empty: root.
fn resolve(user: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (user, wanted_group) = user.split_once(':').unwrap_or((user, ""));
    let user = if user.is_empty() { "0" } else { user };
    let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 6);
    let entry = users.find(|fields| fields[0] == user || fields[2] == user);
    let (uid, gid, home) = match (&entry, user.parse()) {
        (Some(fields), _) => (fields[2].parse().ok(), fields[3].parse().ok(), fields[5]),
        (None, Ok(uid)) => (Some(uid), Some(0), "/"),
        (None, Err(_)) => return Err(format!("its user {user:?} is not in its /etc/passwd")),
    };
    let gid = if wanted_group.is_empty() {
        gid
    } else {
        let mut groups = group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 3);
        let entry = groups.find(|fields| fields[0] == wanted_group);
        match (entry, wanted_group.parse()) {
            (Some(fields), _) => fields[2].parse().ok(),
            (None, Ok(gid)) => Some(gid),
            (None, Err(_)) => return Err(format!("its group {wanted_group:?} is not in its /etc/group")),
        }
    };
    match (uid, gid) {
        (Some(uid), Some(gid)) => Ok(User { uid, gid, home: home.to_owned() }),
        _ => Err(format!("the entry of {user:?} in its /etc/passwd or /etc/group cannot be parsed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34:www:/var/www:/sbin/nologin\n";

    #[rstest]
    #[case("", Ok((0, 0, "/root")))]
    #[case("www-data", Ok((33, 34, "/var/www")))]
    #[case("33", Ok((33, 34, "/var/www")))]
    #[case("1000", Ok((1000, 0, "/")))]
    #[case("1000:7", Ok((1000, 7, "/")))]
    #[case("www-data:staff", Ok((33, 50, "/var/www")))]
    #[case("nobody", Err("its user \"nobody\" is not in its /etc/passwd"))]
    #[case("root:none", Err("its group \"none\" is not in its /etc/group"))]
    fn users_are_those_of_the_image(#[case] user: &str, #[case] expected: Result<(u32, u32, &str), &str>) {
        let resolved = resolve(user, PASSWD, "root:x:0:\nstaff:x:50:\n");
        let expected = expected.map(|(uid, gid, home)| User { uid, gid, home: home.to_owned() });
        assert_eq!(resolved, expected.map_err(str::to_owned));
    }

    #[test]
    fn what_an_image_leaves_out_is_as_with_container_engines() {
        let image = read("i", br#"{"config": {"Env": ["A=b=c"], "Cmd": ["run"]}}"#, "d".into(), vec![]).unwrap();
        assert_eq!(image.env[0], ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(image.env[1], ("PATH".to_owned(), PATH.to_owned()));
        assert_eq!((image.cmd, image.workdir, image.uid), (vec!["run".to_owned()], None, 0));
        let null = read("i", br#"{"config": {"Entrypoint": null, "WorkingDir": "/srv"}}"#, "d".into(), vec![]).unwrap();
        assert_eq!((null.entrypoint, null.workdir), (vec![], Some("/srv".to_owned())));
    }
}
