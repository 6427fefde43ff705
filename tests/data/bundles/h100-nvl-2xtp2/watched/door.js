function count_answer(r) {
  var status = String(r.variables.status).charAt(0) + 'xx';
  ngx.shared.atoll_answers.incr(r.variables.atoll_replica + ' ' + status, 1, 0);
  return '';
}

function show_answers(r) {
  var lines = ['# HELP atoll_door_requests_total Answers of the door.',
               '# TYPE atoll_door_requests_total counter'];
  ngx.shared.atoll_answers.items().sort().forEach(function (one) {
    var words = one[0].split(' ');
    var labels = '{replica="' + words[0] + '",status="' + words[1] + '"} ';
    lines.push('atoll_door_requests_total' + labels + one[1]);
  });
  r.return(200, lines.join('\n') + '\n');
}

export default { count_answer, show_answers };
