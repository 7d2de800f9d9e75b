// config metadata and config template: what an instance keeps of its image's metadata.
#include "apps/virga/config/metadata.h"

#include <fmt/format.h>

#include "apps/virga/document.h"
#include "apps/virga/editor.h"
#include "apps/virga/instances/instances.h"
#include "apps/virga/listing.h"

namespace virga::cli {
namespace {

Url metadata_url(App& app, const std::string& name) {
  return instance_url(app, name).segment("metadata");
}
Url template_url(App& app, const std::string& name, const std::string& file) {
  return metadata_url(app, name).segment("templates").query("path", file);
}

Result<> show_metadata(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto object, api->object(metadata_url(app, name)));
  app.print(as_yaml(object));
  return {};
}

Result<> edit_metadata(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  std::string etag;
  VIRGA_TRY(auto object, api->object(metadata_url(app, name), &etag));
  constexpr std::string_view help =
      "This is a YAML representation of the instance metadata.\nAny line starting with a '#' will be ignored.\n";
  return edit_document(app, object, help, [&](json::object document) -> Result<> {
    VIRGA_CHECK(api->send("PUT", metadata_url(app, name), std::move(document), stdin_is_terminal() ? etag : std::string()));
    return {};
  });
}

Result<> list_templates(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_TRY(auto names, api->array(metadata_url(app, name).segment("templates")));
  json::array rows;
  for (const auto& file : names) rows.push_back(json::object{{"name", file}});
  const std::vector<Column> columns = {{'n', "FILENAME", field("name")}};
  return print_listing(app, args, columns, rows);
}

Result<std::string> read_template(App& app, const std::string& name, const std::string& file) {
  VIRGA_TRY(auto* api, app.api());
  std::string text;
  auto sink = [&](std::string_view bytes) -> Result<> {
    text += bytes;
    return {};
  };
  VIRGA_CHECK(api->await(api->client().download(template_url(app, name, file).text(), sink)));
  return text;
}

Result<> write_template(App& app, const std::string& name, const std::string& file, std::string text) {
  VIRGA_TRY(auto* api, app.api());
  client::Upload upload;
  upload.target = template_url(app, name, file).text();
  upload.length = text.size();
  upload.read = [text = std::move(text), done = std::size_t(0)](std::span<char> into) mutable -> Result<std::size_t> {
    const auto n = std::min(into.size(), text.size() - done);
    std::copy_n(text.data() + done, n, into.data());
    done += n;
    return n;
  };
  VIRGA_CHECK(api->await(api->client().upload(std::move(upload))));
  return {};
}

Result<> show_template(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto text, read_template(app, name, args[1]));
  app.print(text);
  return {};
}

Result<> create_template(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto text, piped_input());
  return write_template(app, name, args[1], std::move(text));
}

Result<> edit_template(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  if (!stdin_is_terminal()) {
    VIRGA_TRY(auto text, piped_input());
    return write_template(app, name, args[1], std::move(text));
  }
  VIRGA_TRY(auto before, read_template(app, name, args[1]));
  VIRGA_TRY(auto after, edit_text(before));
  return after == before ? Result<>{} : write_template(app, name, args[1], std::move(after));
}

Result<> delete_template(App& app, const Args& args) {
  VIRGA_TRY(auto name, local_name(args[0]));
  VIRGA_TRY(auto* api, app.api());
  VIRGA_CHECK(api->send("DELETE", template_url(app, name, args[1])));
  return {};
}

}  // namespace

Command instance_metadata_command() {
  Command group{.use = "metadata", .summary = "Manage instance metadata files"};
  group.children = {
      {.use = "edit [<remote>:]<instance>", .summary = "Edit instance metadata files", .least = 1, .most = 1, .run = edit_metadata},
      {.use = "show [<remote>:]<instance>",
       .summary = "Show instance metadata files",
       .least = 1,
       .most = 1,
       .run = show_metadata}};
  return group;
}

Command instance_template_command() {
  Command group{.use = "template",
                .summary = "Manage instance file templates",
                .description = "Templates are rendered into a container's files when it starts, as its metadata says."};
  group.children = {{.use = "create [<remote>:]<instance> <template>",
                     .summary = "Create new instance file templates",
                     .examples = "virga config template create c1 hosts.tpl < hosts.tpl",
                     .least = 2,
                     .most = 2,
                     .run = create_template},
                    {.use = "delete [<remote>:]<instance> <template>",
                     .summary = "Delete instance file templates",
                     .aliases = {"rm"},
                     .least = 2,
                     .most = 2,
                     .run = delete_template},
                    {.use = "edit [<remote>:]<instance> <template>",
                     .summary = "Edit instance file templates",
                     .least = 2,
                     .most = 2,
                     .run = edit_template},
                    {.use = "list [<remote>:]<instance>",
                     .summary = "List instance file templates",
                     .aliases = {"ls"},
                     .flags = {columns_flag("n"), format_flag()},
                     .least = 1,
                     .most = 1,
                     .run = list_templates},
                    {.use = "show [<remote>:]<instance> <template>",
                     .summary = "Show content of instance file templates",
                     .least = 2,
                     .most = 2,
                     .run = show_template}};
  return group;
}

}  // namespace virga::cli
