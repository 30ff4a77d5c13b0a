// SQLite's C interface as owned values.
// SPDX-License-Identifier: Apache-2.0
#include "tune/sqlite.h"

#include <cmath>
#include <limits>
#include <utility>

namespace hone::tune {
namespace {

// How long a call waits for another process, in milliseconds.
constexpr int kBusyTimeout = 5000;

Error database_error(sqlite3* database, int code, const std::string& path) {
  Error error;
  error.code = ErrorCode::kIo;
  error.what = "the run records cannot be used";
  error.where = path;
  error.found = database != nullptr ? sqlite3_errmsg(database) : sqlite3_errstr(code);
  switch (code & 0xFF) {  // without the extended part
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      error.what = "another process holds the run records";
      error.advice = "wait for it to end, or use another file with --runs FILE";
      break;
    case SQLITE_NOTADB:
      error.code = ErrorCode::kCorrupt;
      error.what = "this is no file of run records";
      error.expected = "an SQLite database that hone made";
      error.advice = "give another file with --runs FILE";
      break;
    case SQLITE_CORRUPT:
      error.code = ErrorCode::kCorrupt;
      error.what = "the file of run records is damaged";
      error.advice =
          "save what is left with `sqlite3 FILE .recover`, then move the file out of the way";
      break;
    case SQLITE_FULL:
      error.what = "there is no room for the run records";
      error.advice = "make room on the disk";
      break;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_CANTOPEN:
      error.advice = "check the permissions of file and folder, or use --runs FILE";
      break;
    case SQLITE_NOMEM: error.code = ErrorCode::kOutOfMemory; break;
    case SQLITE_ERROR:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
    case SQLITE_CONSTRAINT: error.code = ErrorCode::kInternal; break;
    default: break;
  }
  return error;
}

}  // namespace

Statement& Statement::bind(int at, std::string_view text) {
  const int code =
      sqlite3_bind_text64(statement_.get(), at, text.data() == nullptr ? "" : text.data(),
                          text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  if (trouble_ == SQLITE_OK) trouble_ = code;
  return *this;
}

Statement& Statement::bind(int at, std::int64_t value) {
  const int code = sqlite3_bind_int64(statement_.get(), at, value);
  if (trouble_ == SQLITE_OK) trouble_ = code;
  return *this;
}

Statement& Statement::bind(int at, double value) {
  const int code = sqlite3_bind_double(statement_.get(), at, value);
  if (trouble_ == SQLITE_OK) trouble_ = code;
  return *this;
}

Result<bool> Statement::step() {
  int code = std::exchange(trouble_, SQLITE_OK);
  if (code == SQLITE_OK) code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    sqlite3_reset(statement_.get());
    return false;
  }
  Error error = database_error(database_, code, path_);
  sqlite3_reset(statement_.get());
  return error;
}

Status Statement::run() {
  while (true) {
    const auto row = step();
    if (!row) return row.error();
    if (!*row) return {};
  }
}

std::string Statement::text(int column) const {
  const unsigned char* bytes = sqlite3_column_text(statement_.get(), column);
  if (bytes == nullptr) return "";
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return std::string(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
}

std::int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double Statement::real(int column) const {
  if (is_null(column)) return std::numeric_limits<double>::quiet_NaN();
  return sqlite3_column_double(statement_.get(), column);
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

Result<Database> Database::open(const std::string& path, bool create) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  Database database(handle, path);  // owns the handle, also of a failed call
  if (code != SQLITE_OK) return database_error(handle, code, path);
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kBusyTimeout);
  return database;
}

Result<Statement> Database::prepare(const std::string& sql) const {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(handle_.get(), sql.c_str(), static_cast<int>(sql.size()),
                                      &statement, nullptr);
  if (code != SQLITE_OK) return database_error(handle_.get(), code, path_);
  return Statement(handle_.get(), path_, statement);
}

Status Database::execute(const std::string& sql) const {
  const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return database_error(handle_.get(), code, path_);
  return {};
}

Result<std::int64_t> Database::integer(const std::string& sql) const {
  auto statement = prepare(sql);
  if (!statement) return statement.error();
  const auto row = statement->step();
  if (!row) return row.error();
  return *row ? statement->integer(0) : 0;
}

Result<Transaction> Transaction::begin(const Database& database) {
  HONE_RETURN_IF_ERROR(database.execute("BEGIN IMMEDIATE"));
  return Transaction(database);
}

Status Transaction::commit() {
  HONE_RETURN_IF_ERROR(database_->execute("COMMIT"));  // a failed one is rolled back at the end
  database_ = nullptr;
  return {};
}

Transaction::Transaction(Transaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

Transaction::~Transaction() {
  if (database_ != nullptr) (void)database_->execute("ROLLBACK");
}

}  // namespace hone::tune
