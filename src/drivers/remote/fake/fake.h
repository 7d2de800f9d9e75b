// Servers elsewhere for tests: answers that were laid out beforehand, by URL, and a record of what was asked.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/hash.h"
#include "drivers/remote/driver.h"
#include "io/file.h"

namespace virga::remote {

class FakeDriver : public Driver {
 public:
  std::map<std::string, Answer> answers;                                          ///< by URL; others are 404
  std::vector<Request> asked;                                                     ///< in order
  std::vector<std::vector<Upload>> sent;                                          ///< what send() was given
  std::map<std::string, std::vector<std::pair<std::string, std::string>>> parts;  ///< URL to multipart bodies: part, bytes

  Task<Result<Answer>> fetch(Request request) override {
    asked.push_back(request);
    auto it = answers.find(request.url);
    if (it == answers.end()) co_return Answer{.status = 404, .url = request.url, .headers = {}, .body = {}};
    Answer out = it->second;
    if (out.body.size() > request.max_body) co_return fail(ErrorKind::invalid, "the answer is too long");
    if (out.url.empty()) out.url = request.url;
    co_return out;
  }

  Task<Result<std::vector<Saved>>> save(Request request, Bytes limit,
                                        std::function<std::string(std::string_view)> path_for) override {
    asked.push_back(request);
    std::vector<std::pair<std::string, std::string>> bodies;
    if (auto it = parts.find(request.url); it != parts.end()) bodies = it->second;
    if (auto it = answers.find(request.url); it != answers.end()) {
      if (it->second.status / 100 != 2) co_return fail(ErrorKind::denied, "the server refused");
      bodies.emplace_back("", it->second.body);
    }
    if (bodies.empty()) co_return fail(ErrorKind::not_found, "the server answered 404 Not Found");
    std::vector<Saved> out;
    Bytes total = 0;
    for (const auto& [part, bytes] : bodies) {
      const auto path = path_for(part);
      if (path.empty()) co_return fail(ErrorKind::invalid, "unexpected part");
      total += bytes.size();
      if (total > limit) co_return fail(ErrorKind::invalid, "the download is too long");
      VIRGA_CO_CHECK(io::write_file(path, bytes));
      Sha256 hash;
      hash.add(bytes);
      out.push_back({.part = part, .file_name = "", .sha256 = hash.hex(), .size = bytes.size()});
    }
    co_return out;
  }

  Task<Result<Answer>> send(Request request, std::vector<Upload> files) override {
    sent.push_back(std::move(files));
    return fetch(std::move(request));
  }

  Task<Result<std::unique_ptr<Channel>>> channel(Request) override {
    co_return fail(ErrorKind::unsupported, "the fake has no channels");
  }
};

}  // namespace virga::remote
