//! Uploaded artifacts: the raw body, or the one file of a `multipart/form-data` body (RFC 7578), which is
//! what `curl -F file=@hello.py` and a browser's form send.

use std::convert::Infallible;

use bytes::Bytes;
use crosstie_model::UnitName;
use crosstie_model::unit::{Artifact, ArtifactKind, LIBRARY_UNIT};
use crosstie_runtime::archive;
use http::{HeaderMap, header};
use multer::Multipart;

use super::problem::Problem;

/// Where a tar archive has its magic (POSIX.1-2017, pax, "ustar Interchange Format").
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uploaded {
    /// Its name as the client gave it; only its stem is ever used, and as a unit's name alone.
    pub file_name: Option<String>,
    /// Its bytes.
    pub content: Bytes,
}

/// Reads what was uploaded with `headers`.
///
/// # Errors
/// A multipart body that is malformed or holds no file, or several.
pub(crate) async fn read(headers: &HeaderMap, body: Bytes) -> Result<Uploaded, Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let Ok(boundary) = multer::parse_boundary(media_type) else {
        if media_type.trim_start().to_ascii_lowercase().starts_with("multipart/") {
            return Err(Problem::unsupported_media_type("raw bytes or multipart/form-data with a boundary"));
        }
        return Ok(Uploaded { file_name: None, content: body });
    };
    let malformed = |error: multer::Error| Problem::bad_request(format!("the multipart body: {error}"));
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(body)]);
    let mut multipart = Multipart::new(stream, boundary);
    let mut found: Option<Uploaded> = None;
    while let Some(field) = multipart.next_field().await.map_err(malformed)? {
        let Some(file_name) = field.file_name().map(str::to_owned) else { continue };
        if found.is_some() {
            return Err(Problem::bad_request("the body holds several files; deploy them one by one"));
        }
        let content = field.bytes().await.map_err(malformed)?;
        found = Some(Uploaded { file_name: Some(file_name), content });
    }
    found.ok_or_else(|| Problem::bad_request("the multipart body holds no file"))
}

impl Uploaded {
    /// The artifact: of `unit`, or of the unit the file's name says; of `kind`, or of what its content looks
    /// like. Archives are written anew, so that equal trees have equal digests whoever packed them.
    ///
    /// # Errors
    /// No unit's name can be told, or an archive cannot be read.
    pub(crate) fn into_artifact(
        self,
        unit: Option<UnitName>,
        kind: Option<ArtifactKind>,
    ) -> Result<Artifact, Problem> {
        let unit = match unit {
            Some(unit) => unit,
            None => unit_of(self.file_name.as_deref())?,
        };
        let kind = kind.unwrap_or_else(|| guess(&unit, &self.content));
        let content = match kind {
            ArtifactKind::PythonFile => self.content,
            ArtifactKind::PythonPackage | ArtifactKind::PythonLibrary => {
                let files = archive::unpack(&self.content)
                    .map_err(|error| Problem::bad_request(format!("the archive cannot be read: {error}")))?;
                archive::build(&files)
                    .map_err(|error| Problem::bad_request(format!("the archive cannot be kept: {error}")))?
            }
        };
        Ok(Artifact::new(unit, kind, content))
    }
}

fn unit_of(file_name: Option<&str>) -> Result<UnitName, Problem> {
    let hint = "name the unit with ?unit=NAME";
    let name = file_name.ok_or_else(|| Problem::bad_request(hint))?;
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let stem = [".py", ".tar"].iter().find_map(|end| base.strip_suffix(end)).unwrap_or(base);
    UnitName::new(stem).map_err(|error| Problem::bad_request(format!("the file's name: {error}; {hint}")))
}

fn guess(unit: &UnitName, content: &Bytes) -> ArtifactKind {
    let (at, magic) = TAR_MAGIC;
    let is_tar = content.get(at..at + magic.len()) == Some(magic);
    match (unit.as_str() == LIBRARY_UNIT, is_tar) {
        (_, false) => ArtifactKind::PythonFile,
        (true, true) => ArtifactKind::PythonLibrary,
        (false, true) => ArtifactKind::PythonPackage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(media_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))])
    }

    fn multipart(parts: &[(&str, &str)]) -> Bytes {
        let mut body = String::new();
        for (disposition, content) in parts {
            body.push_str(&format!(
                "--X\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{content}\r\n"
            ));
        }
        body.push_str("--X--\r\n");
        body.into()
    }

    #[tokio::test]
    async fn a_form_with_one_file_is_an_artifact_named_after_it() {
        let body = multipart(&[("name=\"note\"", "hi"), ("name=\"file\"; filename=\"a/hello.py\"", "x = 1")]);
        let uploaded = read(&headers("multipart/form-data; boundary=X"), body).await.unwrap();
        let artifact = uploaded.into_artifact(None, None).unwrap();
        assert_eq!((artifact.unit.as_str(), &*artifact.content), ("hello", &b"x = 1"[..]));
        assert_eq!(artifact.kind, ArtifactKind::PythonFile);
    }

    #[tokio::test]
    async fn a_form_without_a_file_or_with_two_is_refused() {
        let file = ("name=\"file\"; filename=\"a.py\"", "x");
        for body in
            [multipart(&[("name=\"note\"", "hi")]), multipart(&[file, file]), Bytes::from("--X\r\nbad")]
        {
            let problem = read(&headers("multipart/form-data; boundary=X"), body).await.unwrap_err();
            assert_eq!(problem.status, 400);
        }
        let problem = read(&headers("multipart/mixed"), Bytes::new()).await.unwrap_err();
        assert_eq!(problem.status, 415);
    }

    #[tokio::test]
    async fn a_raw_body_needs_a_unit_and_an_archive_that_can_be_read() {
        let raw = || Uploaded { file_name: None, content: Bytes::from_static(b"x = 1") };
        assert_eq!(raw().into_artifact(None, None).unwrap_err().status, 400);
        let unit = UnitName::new("demo").unwrap();
        assert!(raw().into_artifact(Some(unit.clone()), None).is_ok());
        let problem = raw().into_artifact(Some(unit), Some(ArtifactKind::PythonPackage)).unwrap_err();
        assert_eq!(problem.status, 400);
    }

    #[test]
    fn equal_trees_have_equal_digests() {
        let files = archive::Files::from_iter([("__init__.py".to_owned(), Bytes::from_static(b"x = 1"))]);
        let built = archive::build(&files).unwrap();
        // Padding behind the end of an archive, as tar's blocking factor makes it.
        let mut padded = built.to_vec();
        padded.extend_from_slice(&[0; 10_240]);
        let unit = UnitName::new("crm").unwrap();
        let of = |content: Bytes| Uploaded { file_name: None, content };
        let plain = of(built).into_artifact(Some(unit.clone()), None).unwrap();
        let other = of(padded.into()).into_artifact(Some(unit), None).unwrap();
        assert_eq!(plain.kind, ArtifactKind::PythonPackage);
        assert_eq!(plain.digest, other.digest);
    }
}
