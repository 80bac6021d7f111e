//! Both sides over links in memory. The clock is the runtime's own: it runs only while everybody waits.

mod codecs;
mod hostile;
mod model;
mod pool;
mod requests;
mod rig;
mod watches;
