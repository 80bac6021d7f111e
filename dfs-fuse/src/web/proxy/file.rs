//! Files that say what the proxy does: short, and nothing else than files.

use std::io;
use std::path::Path;

use dfs_service::private_file;

/// Largest one.
const MAX_BYTES: u64 = 1 << 20;

/// What one says.
pub fn read(path: &Path) -> io::Result<String> {
    let bytes = private_file::read(path, MAX_BYTES + 1)?;
    let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is above 1 MiB"));
    }
    let text = std::str::from_utf8(&bytes).map(str::to_owned);
    text.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_endless_or_waits_for_somebody_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x = 1").unwrap();
        assert_eq!(read(&file).unwrap(), "x = 1");
        std::fs::write(&file, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&file, [0xff]).unwrap();
        assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(read(Path::new("/dev/zero")).is_err() && read(dir.path()).is_err());
        assert_eq!(read(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
