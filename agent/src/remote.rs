//! stub
use std::os::fd::BorrowedFd;
use ocelli_reflex::QuestionId;
/// s
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
pub struct Settings {}
/// s
pub struct Remote {}
/// s
pub struct RemoteJob { /// s
 pub id: QuestionId, /// s
 pub jpeg: Vec<u8>, /// s
 pub prompt: String, /// s
 pub form: crate::entry::AnswerForm }
/// s
pub struct RemoteAnswer { /// s
 pub value: ocelli_reflex::observation::Value, /// s
 pub text: String, /// s
 pub probability: Option<f32>, /// s
 pub unsure: bool, /// s
 pub url: String, /// s
 pub model: String, /// s
 pub picture_sha256: [u8;32] }
impl Remote {
    /// s
    pub fn start(_: Settings, _: bool) -> Result<Remote, std::io::Error> { unimplemented!() }
    /// s
    pub fn ask(&self, _: RemoteJob) -> Result<(), std::io::Error> { unimplemented!() }
    /// s
    pub fn try_next(&self) -> Option<(QuestionId, Result<RemoteAnswer, std::io::Error>)> { None }
    /// s
    pub fn fd(&self) -> BorrowedFd<'_> { unimplemented!() }
}
